// Every board fits the types of the Grafana that compose.yaml starts, and each kind of mistake is seen.
import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import path from "node:path";
import test from "node:test";
import { fileURLToPath } from "node:url";

import { faults } from "./types.mjs";

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
const BOARDS = path.join(ROOT, "dashboards");
const board = (name) => JSON.parse(readFileSync(path.join(BOARDS, name), "utf8"));
const names = readdirSync(BOARDS).filter((name) => name.endsWith(".json"));

test("there are boards", () => assert.ok(names.length >= 3, names.join(" ")));

for (const name of names) {
  test(`${name} fits`, () => assert.deepEqual(faults(board(name)), []));
}

test("the types are those of the Grafana that compose.yaml starts", () => {
  const types = JSON.parse(readFileSync(path.join(ROOT, "tests/boards/package.json"), "utf8")).devDependencies;
  const image = readFileSync(path.join(ROOT, "compose.yaml"), "utf8").match(/grafana\/grafana:(\S+)/)[1];
  assert.equal(types["@grafana/schema"], image);
});

const panel = (board, type) => board.panels.find((panel) => panel.type === type);
const MISTAKES = {
  "a misspelled option": (board) => (panel(board, "stat").options.colourMode = "background"),
  "an option with a value that there is not": (board) => (panel(board, "stat").options.colorMode = "rainbow"),
  "a misspelled option inside another": (board) => (panel(board, "timeseries").options.legend.show = true),
  "a number where a text belongs": (board) => (panel(board, "stat").fieldConfig.defaults.unit = 5),
  "a misspelled field option": (board) => (panel(board, "timeseries").fieldConfig.defaults.custom.lineWitdh = 1),
  "a misspelled threshold": (board) => (panel(board, "stat").fieldConfig.defaults.thresholds.step = []),
  "an override of what there is not": (board) => {
    const override = { matcher: { id: "byName", options: "A" }, properties: [{ id: "custom.colour", value: "red" }] };
    panel(board, "timeseries").fieldConfig.overrides.push(override);
  },
  "a field option that a stat does not have": (board) => (panel(board, "stat").fieldConfig.defaults.custom = { lineWidth: 1 }),
  "a misspelled field of a panel": (board) => (panel(board, "stat").titel = "A"),
  "a place without a width": (board) => (panel(board, "stat").gridPos.width = 3),
  "a misspelled field of a row": (board) => (panel(board, "row").colapsed = true),
  "a misspelled field of the board": (board) => (board.timeZone = "utc"),
  "a variable that is sorted in a way that there is not": (board) => (board.templating.list[1].sort = 99),
};

for (const [mistake, make] of Object.entries(MISTAKES)) {
  test(`${mistake} is seen, and nothing else`, () => {
    const spoilt = board("prompt-redis-observing.json");
    make(spoilt);
    assert.equal(faults(spoilt).length, 1, faults(spoilt).join("\n"));
  });
}
