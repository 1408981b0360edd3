// Makes the pictures of the README, docs/images/*.png: the page, light and dark, and `status`, a good minute after
// `make demo` began.
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { createInterface } from "node:readline";
import { AnsiUp } from "ansi_up";
import { openBrowser, root } from "./lib.mjs";

const images = path.join(root, "docs/images");
const columns = 100;

/** Starts the demo on the newest Redis that is here, and waits until it says where its page is and how `status` is run. */
async function startDemo() {
  const child = spawn("scripts/demo.sh", {
    cwd: root,
    env: {
      ...process.env,
      EXPORTER: "target/debug/prompt-redis-exporter",
      NIGHT: "target/debug/examples/observing_night",
    },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const demo = {
    async stop() {
      child.kill("SIGTERM");
      if (child.exitCode === null) await once(child, "exit");
    },
  };
  for await (const line of createInterface({ input: child.stdout })) {
    const [, label, rest] = line.match(/^(\w+): +(.*)$/) ?? [];
    if (label === "Page") demo.url = rest;
    if (label === "Terminal") demo.status = rest;
    if (line.includes("Ctrl-C ends it")) break;
  }
  // Nobody reads the rest, and a full pipe would hold the demo.
  child.stdout.resume();
  if (!demo.url || !demo.status) throw new Error("the demo has not said where its page is");
  return demo;
}

/** The page in this colour scheme, once it warns of what waits. It has drawn its trends by then. */
async function openPage(browser, url, colorScheme) {
  const context = await browser.newContext({ colorScheme, viewport: { width: 1000, height: 800 } });
  const page = await context.newPage();
  await page.goto(url);
  await page.getByText("messages wait, the oldest for 1 min").waitFor({ timeout: 180_000 });
  return page;
}

/** What `status` writes on a terminal of 100 columns, as it looks there. */
async function openTerminal(browser, status) {
  const command = `stty cols ${columns} rows 60; ${status} || true`;
  const written = execFileSync("script", ["--quiet", "--command", command, "/dev/null"], {
    cwd: root,
    env: { ...process.env, TERM: "xterm-256color", NO_COLOR: "" },
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
  });
  const page = await browser.newPage({ viewport: { width: 1000, height: 400 } });
  const text = `$ prompt-redis-exporter status\n${written.replaceAll("\r", "").trimEnd()}`;
  await page.setContent(`<style>
      body { margin: 0; display: inline-block; background: #15181c; color: #e6e8eb; }
      pre { width: ${columns}ch; margin: 16px; font: 14px/1.35 "DejaVu Sans Mono", monospace; white-space: pre-wrap;
        word-break: break-all; }
    </style><pre>${new AnsiUp().ansi_to_html(text)}</pre>`);
  return page;
}

/** A picture with a palette of its own, which is a third of the size. */
async function picture(page, name) {
  const file = path.join(images, name);
  await writeFile(file, await page.locator("body").screenshot());
  execFileSync("pngquant", ["--force", "--strip", "--speed=1", "--output", file, file], { stdio: "inherit" });
}

await mkdir(images, { recursive: true });
const demo = await startDemo();
const browser = await openBrowser();
try {
  const [light, dark] = await Promise.all(["light", "dark"].map((scheme) => openPage(browser, demo.url, scheme)));
  await picture(light, "page-light.png");
  await picture(dark, "page-dark.png");
  await picture(await openTerminal(browser, demo.status), "status.png");
} finally {
  await browser.close();
  await demo.stop();
}
