"use strict";
// Refreshes the page in place, filters it, copies commands and draws trends. The page is complete without it.

const REFRESH_MS = 10_000;
const GIVE_UP_MS = 15_000;
const HISTORY = "prompt-redis-exporter history";
/** Samples kept for each row: half an hour. With many rows fewer, so that the browser's storage has room. */
const samples = (rows) => (rows > 200 ? 30 : 180);

const main = () => document.querySelector("main");
const rows = () => [...document.querySelectorAll("tbody tr")];
const nameOf = (row) => row.querySelector("th").textContent;

let history = new Map();
try {
  history = new Map(JSON.parse(sessionStorage.getItem(HISTORY)));
} catch {
  // No storage, or something else in it: the trends begin now.
}

function remember() {
  const now = new Map();
  const all = rows();
  for (const row of all) {
    const number = (name) => (name in row.dataset ? Number(row.dataset[name]) : null);
    const before = history.get(nameOf(row)) ?? [];
    now.set(nameOf(row), [...before, [number("waiting"), number("age")]].slice(-samples(all.length)));
  }
  history = now;
  try {
    sessionStorage.setItem(HISTORY, JSON.stringify([...history]));
  } catch {
    // The storage is full or forbidden: the trends last as long as this page.
  }
}

function drawTrends() {
  for (const row of rows()) {
    const seen = history.get(nameOf(row)) ?? [];
    if (seen.length < 2) continue;
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 100 20");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("role", "img");
    ["waiting", "age"].forEach((name, index) => {
      const values = seen.map((sample) => sample[index]);
      const highest = Math.max(1, ...values.filter((value) => value !== null));
      const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
      const point = (value, at) => `${(at * 100) / (seen.length - 1)},${19 - (18 * value) / highest}`;
      const points = values.map((value, at) => (value === null ? null : point(value, at)));
      line.setAttribute("points", points.filter((known) => known !== null).join(" "));
      line.setAttribute("class", name);
      svg.append(line);
    });
    const waited = seen.map((sample) => sample[0] ?? 0);
    svg.setAttribute("aria-label", `waiting: ${waited.at(-1)} now, at most ${Math.max(...waited)} since this page was opened`);
    row.querySelector(".trend").replaceChildren(svg);
  }
}

/** Without a secure context, as behind plain HTTP, there is no clipboard object: then the selection is copied. */
async function copy(code) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(code.textContent);
    return;
  }
  const selection = getSelection();
  selection.selectAllChildren(code);
  const done = document.execCommand("copy");
  selection.removeAllRanges();
  if (!done) throw new Error("refused");
}

function addCopyButtons() {
  document.querySelectorAll(".command").forEach((command, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.id = `copy-${index}`;
    button.textContent = "Copy";
    button.setAttribute("aria-label", `Copy the command that ${command.querySelector("span").textContent}`);
    button.addEventListener("click", async () => {
      const code = command.querySelector("code");
      try {
        await copy(code);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code);
        button.textContent = "Press Ctrl-C";
      }
    });
    command.prepend(button);
  });
}

function filter() {
  const wanted = document.querySelector("#filter").value.toLowerCase();
  let shown = 0;
  const all = rows();
  for (const row of all) {
    row.hidden = !nameOf(row).toLowerCase().includes(wanted);
    if (!row.hidden) shown += 1;
  }
  for (const finding of document.querySelectorAll(".finding")) {
    finding.hidden = !finding.dataset.name.toLowerCase().includes(wanted);
  }
  document.querySelector("#filter-count").textContent = wanted ? `${shown} of ${all.length}` : "";
}

function enhance() {
  drawTrends();
  addCopyButtons();
  filter();
}

function stale(reason) {
  const banner = document.querySelector("#stale");
  banner.hidden = !reason;
  banner.textContent = reason ? `The exporter does not answer (${reason}). What stands below is old: it was read at ${readAt}.` : "";
  main().classList.toggle("stale", Boolean(reason));
}

const clock = () => new Date().toLocaleTimeString();
let readAt = clock();

/** Someone who has marked a text in the page wants to keep it. */
function isReading() {
  const selection = getSelection();
  return selection && !selection.isCollapsed && main().contains(selection.anchorNode);
}

async function refresh() {
  try {
    const response = await fetch(location.href, { signal: AbortSignal.timeout(GIVE_UP_MS), cache: "no-store" });
    if (!response.ok) throw new Error(`status ${response.status}`);
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const fresh = page.querySelector("main");
    if (!fresh) throw new Error("another page");
    stale("");
    if (isReading()) return;
    const [focused, x, y] = [document.activeElement?.id, scrollX, scrollY];
    main().replaceWith(document.adoptNode(fresh));
    document.title = page.title;
    readAt = clock();
    remember();
    enhance();
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
    scrollTo(x, y);
  } catch (error) {
    stale(error.name === "TimeoutError" ? "no answer in time" : error.message);
  }
}

async function refreshForever() {
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, REFRESH_MS));
    if (!document.hidden) await refresh();
  }
}

document.documentElement.classList.add("js");
document.querySelector("#filter-box").hidden = false;
document.querySelector("#filter").addEventListener("input", filter);
document.addEventListener("visibilitychange", () => document.hidden || refresh());
remember();
enhance();
refreshForever();
