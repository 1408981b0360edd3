// Makes the README's pictures: the page and `status`, of the state of `make demo` after half a minute.
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { openBrowser, until } from "./lib.mjs";

const root = path.resolve(import.meta.dirname, "../..");
const images = path.join(root, "docs/images");
const exporter = path.join(root, "target/debug/prompt-redis-exporter");
const seconds = 30;

const demo = spawn(path.join(root, "scripts/demo.sh"), [], {
  cwd: root,
  env: { ...process.env, EXPORTER: exporter, NIGHT: path.join(root, "target/debug/examples/observing_night") },
  stdio: ["ignore", "pipe", "inherit"],
});
let said = "";
demo.stdout.on("data", (chunk) => (said += chunk));

/** The terminal's text with its colours as HTML. */
function html(text) {
  const colours = { 9: "#ff8a80", 11: "#ffc259", 10: "#7ddb95", 14: "#82b7ff", 1: "#ff8a80", 3: "#ffc259", 2: "#7ddb95", 6: "#82b7ff" };
  const escaped = text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
  let open = 0;
  const spans = escaped.replace(/\x1b\[([\d;]*)m/g, (_, codes) => {
    if (codes === "" || codes === "0") return "</span>".repeat(open) + ((open = 0), "");
    open += 1;
    const colour = /^38;5;(\d+)$/.exec(codes)?.[1];
    if (colour) return `<span style="color:${colours[colour] ?? "inherit"}">`;
    return codes === "1" ? '<span style="font-weight:bold">' : "<span>";
  });
  return `<body style="margin:0;background:#15181c"><pre style="margin:0;padding:14px;display:inline-block;color:#e6e8eb;
    background:#15181c;font:13px/1.35 'DejaVu Sans Mono',monospace">${spans}${"</span>".repeat(open)}</pre>`;
}

let browser;
try {
  const url = await until("the demo says where the page is", () => /http:\/\/127\.0\.0\.1:\d+\//.exec(said)?.[0]);
  const port = /on 127\.0\.0\.1:(\d+),/.exec(said)[1];
  browser = await openBrowser();
  const page = await browser.newPage({ viewport: { width: 1100, height: 700 } });
  await page.goto(url);
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  await mkdir(images, { recursive: true });
  await page.screenshot({ path: path.join(images, "page.png") });
  const command = `stty cols 100 rows 100; ${exporter} status --redis.url=redis://127.0.0.1:${port} || true`;
  const status = execFileSync("script", ["-qec", command, "/dev/null"], { encoding: "utf8", env: { ...process.env, TERM: "xterm-256color" } });
  await page.setContent(html(`$ prompt-redis-exporter status\n${status.replaceAll("\r", "")}`));
  await page.locator("pre").screenshot({ path: path.join(images, "status.png") });
} finally {
  await browser?.close();
  demo.kill("SIGTERM");
  await once(demo, "exit");
}
