// The page for people in a real browser, in front of a real Redis.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";
import { openBrowser, startExporter, startRedis, until } from "./lib.mjs";

const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const hostile = ["<script>window.hacked = 1</script>", '"><img src=x onerror="window.hacked=1">', "r\u202el", "e\u001b[2J"];
const phone = { viewport: { width: 360, height: 740 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };

let redis, exporter, browser;

before(async () => {
  redis = await startRedis();
  for (const name of ["instrument:healthy", "instrument:lsstcam", ...hostile]) {
    await redis.run(["XGROUP", "CREATE", name, "some_consumer_group", "$", "MKSTREAM"]);
  }
  // An entry that has waited for longer than any limit.
  await redis.run(["XADD", "instrument:lsstcam", `${Date.now() - 200_000}-0`, "detector", "1"]);
  exporter = await startExporter(redis, "--stream=*", "--stream=instrument:missing=g");
  browser = await openBrowser();
});

after(async () => {
  await browser?.close();
  await exporter?.stop();
  await redis?.stop();
});

/** Opens the page; fails on any error in the console, such as a violation of the security policy. */
async function open(t, options = {}, url = exporter.url) {
  const context = await browser.newContext(options);
  t.after(() => context.close());
  const page = await context.newPage();
  const errors = [];
  page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
  page.on("pageerror", (error) => errors.push(String(error)));
  const answer = await page.goto(url);
  assert.equal(answer.status(), 200);
  return { page, errors };
}

test("what is in trouble stands first, with what to type", async (t) => {
  const { page, errors } = await open(t);
  const finding = page.locator(".finding").filter({ hasText: "instrument:missing / g" });
  assert.match(await finding.innerText(), /critical[\s\S]*neither the stream nor this group/);
  const command = `redis-cli -p ${redis.port} XGROUP CREATE instrument:missing g '$' MKSTREAM`;
  assert.equal(await finding.locator("code").innerText(), command);
  const states = await page.locator("tbody tr td:first-child").allInnerTexts();
  const rank = (state) => ["critical", "warning", "info", "ok"].indexOf(state);
  assert.deepEqual(states, states.toSorted((a, b) => rank(a) - rank(b)));
  assert.match(await page.title(), /^critical: \d+ findings/);
  for (const link of ["Metrics", "Health", "Runbook", "Alerts and dashboards"]) {
    assert.ok(await page.getByRole("link", { name: link, exact: true }).isVisible(), link);
  }
  await page.getByText("and configuration").click();
  assert.ok(await page.getByText(`redis://127.0.0.1:${redis.port}`).last().isVisible());
  assert.deepEqual(errors, []);
});

test("a command is copied", async (t) => {
  const { page } = await open(t, { permissions: ["clipboard-read", "clipboard-write"] });
  const finding = page.locator(".finding").filter({ hasText: "instrument:missing / g" });
  await finding.getByRole("button").first().click();
  await finding.getByText("Copied").waitFor();
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  assert.equal(copied, await finding.locator("code").first().innerText());
});

test("a command is copied where the browser gives no clipboard object", async (t) => {
  const { page } = await open(t, { permissions: ["clipboard-read", "clipboard-write"] });
  await page.evaluate(() => Object.defineProperty(navigator, "clipboard", { value: undefined }));
  const finding = page.locator(".finding").filter({ hasText: "instrument:missing / g" });
  await finding.getByRole("button").first().click();
  await finding.getByText("Copied").waitFor();
});

test("without script all is there, and the page refreshes itself", async (t) => {
  const { page } = await open(t, { javaScriptEnabled: false });
  assert.ok(await page.getByText("neither the stream nor this group").isVisible());
  assert.ok(await page.getByText("instrument:healthy").isVisible());
  assert.equal(await page.getByLabel("Filter by name").isVisible(), false, "it would do nothing");
  assert.equal(await page.locator("meta[http-equiv=refresh]").count(), 1);
});

test("hostile names are shown and do nothing", async (t) => {
  // Without groups these are the whole names of their rows, and every object in JavaScript has properties of these names.
  const inherited = ["constructor", "__proto__"];
  for (const name of inherited) await redis.run(["XADD", name, "*", "detector", "1"]);
  t.after(() => redis.run(["DEL", ...inherited]));
  const found = async () => (await (await fetch(`${exporter.url}metrics`)).text()).includes(inherited[1]);
  await until("the pattern has found them", found);
  const { page, errors } = await open(t);
  const text = await page.locator("table").innerText();
  for (const shown of [hostile[0], hostile[1], "r\\u{202e}l", "e\\u{1b}[2J", ...inherited]) assert.ok(text.includes(shown), shown);
  assert.equal(await page.evaluate(() => window.hacked), undefined);
  assert.equal(await page.locator("table img, table script").count(), 0);
  assert.deepEqual(errors, []);
});

for (const colorScheme of ["light", "dark"]) {
  for (const [name, device] of [["a desktop", {}], ["a phone", phone]]) {
    test(`axe-core finds nothing on ${name}, ${colorScheme}, and nothing scrolls sideways`, async (t) => {
      const { page, errors } = await open(t, { colorScheme, ...device });
      const back = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
      assert.equal(back, colorScheme === "light" ? "rgb(255, 255, 255)" : "rgb(21, 24, 28)");
      const [content, window] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
      assert.ok(content <= window, `${content} > ${window}`);
      await page.evaluate(axe);
      const { violations } = await page.evaluate(() => globalThis.axe.run());
      const serious = violations.filter(({ impact }) => ["serious", "critical"].includes(impact));
      assert.deepEqual(serious.map(({ id, nodes }) => [id, nodes.map((node) => node.html)]), []);
      assert.deepEqual(errors, []);
        });
  }
}

test("large numbers stay in one line, and do not push the table out of a small desktop's window", async (t) => {
  const { page } = await open(t, { viewport: { width: 961, height: 700 } });
  const [lines, content, window] = await page.evaluate(() => {
    const cells = [...document.querySelector("tbody tr").querySelectorAll("td")].slice(1, -2);
    for (const cell of cells) cell.textContent = "172,924";
    const rows = (cell) => {
      const range = document.createRange();
      range.selectNodeContents(cell);
      return range.getClientRects().length;
    };
    return [cells.map(rows), document.documentElement.scrollWidth, innerWidth];
  });
  assert.deepEqual(lines, Array(7).fill(1));
  assert.ok(content <= window, `${content} > ${window}`);
});

test("a refresh keeps the reader's place and draws the trend", async (t) => {
  const { page, errors } = await open(t, { viewport: { width: 900, height: 300 } });
  await page.getByLabel("Filter by name").fill("instrument");
  await page.locator("code").first().focus();
  await page.evaluate(() => scrollTo(0, 150));
  const rows = await page.locator("tbody tr:visible").count();
  assert.equal(rows, 3, "two streams and one that is missing");
  await redis.run(["XGROUP", "CREATE", "instrument:newcomer", "g", "$", "MKSTREAM"]);
  // The page refreshes when its tab is shown again; ten seconds of waiting would say no more.
  await page.evaluate(() => document.dispatchEvent(new Event("visibilitychange")));
  await page.getByText("instrument:newcomer").waitFor();
  assert.equal(await page.locator("tbody tr:visible").count(), 4, "the filter holds");
  assert.equal(await page.getByLabel("Filter by name").inputValue(), "instrument");
  assert.equal(await page.evaluate(() => scrollY), 150);
  const trend = page.locator("tr", { hasText: "instrument:lsstcam" }).locator("svg");
  assert.match(await trend.getAttribute("aria-label"), /^waiting: 1 now/);
  assert.deepEqual(errors, []);
});

test("an exporter that is gone is said, and what is shown is marked as old", async (t) => {
  const other = await startExporter(redis, "--stream=*");
  t.after(() => other.stop());
  const { page } = await open(t, {}, other.url);
  await other.stop();
  await page.evaluate(() => document.dispatchEvent(new Event("visibilitychange")));
  await page.getByText("What stands below is old").waitFor();
  assert.equal(await page.locator("main.stale").count(), 1);
});

test("with a thousand streams the filter finds one at once", async (t) => {
  const full = await startRedis();
  t.after(() => full.stop());
  const names = [...Array(1000).keys()].map((number) => `instrument:${String(number).padStart(4, "0")}`);
  await full.run(...names.map((name) => ["XGROUP", "CREATE", name, "g", "$", "MKSTREAM"]));
  const large = await startExporter(full);
  t.after(() => large.stop());
  const { page, errors } = await open(t, {}, large.url);
  await until("all rows are there", async () => (await page.locator("tbody tr").count()) === 1000);
  await page.getByLabel("Filter by name").fill("0815");
  assert.equal(await page.locator("tbody tr:visible").count(), 1);
  await page.getByText("1 of 1000").waitFor();
  assert.deepEqual(errors, []);
});
