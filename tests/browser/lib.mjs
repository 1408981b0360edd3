// A Redis of the test's own, the exporter in front of it, and Debian's Chromium.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { chromium } from "playwright-core";

/** The repository. */
export const root = path.resolve(import.meta.dirname, "../..");
const exporter = process.env.EXPORTER ?? path.join(root, "target/debug/prompt-redis-exporter");

/** Waits for a condition; fails with the sentence if it does not come true within ten seconds. */
export async function until(sentence, holds) {
  const end = Date.now() + 10_000;
  for (;;) {
    const value = await holds();
    if (value) return value;
    if (Date.now() > end) throw new Error(`waited in vain: ${sentence}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function freePort() {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

function connects(port) {
  return new Promise((resolve) => {
    const socket = net.connect(port, "127.0.0.1");
    socket.on("connect", () => resolve(true) || socket.destroy());
    socket.on("error", () => resolve(false));
  });
}

export async function startRedis() {
  const port = await freePort();
  const dir = await mkdtemp(path.join(tmpdir(), "prompt-redis-browser."));
  const args = ["--port", `${port}`, "--bind", "127.0.0.1", "--save", "", "--dir", dir];
  const child = spawn("redis-server", args, { stdio: "ignore" });
  await until("redis-server answers", () => connects(port));
  return {
    port,
    url: `redis://127.0.0.1:${port}`,
    /** Runs commands, each a list of words. */
    async run(...commands) {
      const socket = net.connect(port, "127.0.0.1");
      const words = commands.flatMap((command) => [
        `*${command.length}\r\n`,
        ...command.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`),
      ]);
      socket.write(words.join("") + "QUIT\r\n");
      let reply = "";
      for await (const chunk of socket) reply += chunk;
      if (reply.startsWith("-")) throw new Error(reply);
    },
    async stop() {
      child.kill("SIGKILL");
      await once(child, "exit");
      await rm(dir, { recursive: true });
    },
  };
}

export async function startExporter(redis, ...args) {
  const port = await freePort();
  const options = [`--redis.url=${redis.url}`, `--web.listen-address=127.0.0.1:${port}`, ...args];
  const child = spawn(exporter, options, { stdio: ["ignore", "ignore", "inherit"] });
  await until("the exporter answers", () => connects(port));
  return {
    url: `http://127.0.0.1:${port}/`,
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill("SIGTERM");
      await once(child, "exit");
    },
  };
}

export const openBrowser = () =>
  chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [
      "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync",
    ],
  });
