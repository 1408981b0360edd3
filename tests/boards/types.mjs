// Holds a board against the types of @grafana/schema: writes its parts as TypeScript, and gives what the compiler says.
//
// JSON leaves out what has a default, so every field is optional at every depth. It writes the values of enums and not their
// names. What a data source defines (a variable's `definition`, an annotation's `expr`, a target) is not Grafana's, and is
// left out; tests/e2e asks the queries of a real Prometheus.
import path from "node:path";
import { fileURLToPath } from "node:url";

import ts from "typescript";

const HERE = path.dirname(fileURLToPath(import.meta.url));
const RAW = "@grafana/schema/dist/esm/raw/composable";
// Where the types of a panel are.
const PANELS = {
  barchart: "BarChart",
  stat: "Stat",
  "state-timeline": "StateTimeline",
  table: "Table",
  timeseries: "TimeSeries",
  trend: "Trend",
};
// Where no field is left.
const NOTHING = "Record<string, never>";
const PREAMBLE = `import type * as grafana from "@grafana/schema";
type IsAny<T> = 0 extends 1 & T ? true : false;
type Written<T> = IsAny<T> extends true ? any
  : T extends readonly (infer E)[] ? Written<E>[]
  : T extends string ? \`\${T}\`
  : T extends number ? (\`\${T}\` extends \`\${infer N extends number}\` ? N : never)
  : T extends object ? { [K in keyof T]?: Written<T[K]> }
  : T;
type Common = Omit<NonNullable<NonNullable<grafana.Panel["fieldConfig"]>["defaults"]>, "custom">;
`;

/** A part of a board, and the type that it must fit. */
function parts(board) {
  const { panels, templating, annotations, ...head } = board;
  const found = [{ place: "board", type: 'Omit<grafana.Dashboard, "panels" | "templating" | "annotations">', value: head }];
  for (const { definition, ...variable } of templating.list) {
    found.push({ place: `variable ${variable.name}`, type: "grafana.VariableModel", value: variable });
  }
  for (const { expr, step, titleFormat, textFormat, tagKeys, useValueForTime, ...annotation } of annotations.list) {
    found.push({ place: `annotation ${annotation.name}`, type: "grafana.AnnotationQuery", value: annotation });
  }
  return found.concat(panels.flatMap(partsOfPanel));
}

function partsOfPanel(panel) {
  const place = `panel "${panel.title}"`;
  if (panel.type === "row") {
    return [{ place, type: "grafana.RowPanel", value: panel }];
  }
  const { options, fieldConfig, targets, transformations = [], ...rest } = panel;
  const { custom = {}, ...common } = fieldConfig.defaults;
  const own = PANELS[panel.type]?.toLowerCase();
  if (!own) {
    throw new Error(`${place} is a ${panel.type}, whose types are not looked for`);
  }
  return [
    { place, type: 'Omit<grafana.Panel, "options" | "fieldConfig" | "targets" | "transformations">', value: rest },
    { place: `${place}, options`, type: `${own}.Options`, value: options },
    { place: `${place}, field`, type: "Common", value: common },
    { place: `${place}, custom`, type: fieldConfigOf(own), value: custom },
    ...transformations.map((value) => ({ place: `${place}, ${value.id}`, type: "grafana.DataTransformerConfig", value })),
    ...fieldConfig.overrides.flatMap((override) => partsOfOverride(`${place}, ${override.matcher.options}`, own, override)),
  ];
}

/** Each property of an override is a field of its own: `custom.width` is the width of what the panel defines. */
function partsOfOverride(place, own, { matcher, properties, ...rest }) {
  const property = ({ id, value, ...rest }) => {
    const custom = id.startsWith("custom.");
    const type = custom ? fieldConfigOf(own) : "Common";
    return [
      { place: `${place}: ${id}`, type, value: { [custom ? id.slice("custom.".length) : id]: value } },
      { place: `${place}: ${id}`, type: NOTHING, value: rest },
    ];
  };
  return [
    { place, type: "grafana.MatcherConfig", value: matcher },
    { place, type: NOTHING, value: rest },
    ...properties.flatMap(property),
  ];
}

// A stat has no field options of its own.
const fieldConfigOf = (own) => (own === "stat" ? NOTHING : `${own}.FieldConfig`);

/** What does not fit: a sentence each, with the place. */
export function faults(board) {
  const imports = Object.entries(PANELS).map(([type, name]) => {
    const own = name.toLowerCase();
    return `import type * as ${own} from "${RAW}/${own}/panelcfg/x/${name}PanelCfg_types.gen";`;
  });
  const all = parts(board);
  // A line for each part, so that the line of a complaint tells the part.
  const head = PREAMBLE + imports.join("\n");
  const lines = all.map(({ type, value }, index) => `export const part${index}: Written<${type}> = ${JSON.stringify(value)};`);
  const first = head.split("\n").length;
  return complaints(`${head}\n${lines.join("\n")}\n`).map(({ line, text }) => {
    return line < first ? `types.mjs: ${text}` : `${all[line - first].place}: ${text}`;
  });
}

function complaints(source) {
  const name = path.join(HERE, "board.ts");
  const options = {
    strict: true,
    noEmit: true,
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.ESNext,
    moduleResolution: ts.ModuleResolutionKind.Bundler,
    skipLibCheck: true,
    types: [],
  };
  const host = ts.createCompilerHost(options);
  const { getSourceFile, fileExists } = host;
  host.fileExists = (file) => file === name || fileExists(file);
  host.getSourceFile = (file, ...rest) =>
    file === name ? ts.createSourceFile(file, source, ts.ScriptTarget.ES2022) : getSourceFile(file, ...rest);
  const program = ts.createProgram([name], options, host);
  return ts.getPreEmitDiagnostics(program).map((diagnostic) => ({
    line: diagnostic.file ? diagnostic.file.getLineAndCharacterOfPosition(diagnostic.start).line : 0,
    text: ts.flattenDiagnosticMessageText(diagnostic.messageText, " "),
  }));
}
