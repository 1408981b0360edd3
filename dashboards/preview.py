#!/usr/bin/env python3
"""Draw a dashboard of this folder as an SVG, from what a real Prometheus answers to its queries.

    python3 preview.py URL DASHBOARD.json OUT.svg [--at TIME] [--range 3h] [--var NAME=VALUE]... [--note TEXT]

    URL     a Prometheus, for example http://127.0.0.1:9090
    --at    the end of the time range: RFC 3339 (2026-11-12T07:45:00Z), a Unix time, or now (the default)
    --range how far back; by default the board's own
    --var   a variable's value; else All, or the first value where All is not offered
    --note  one more line for the picture's head, for example where the data came from

It needs Python 3.9 or later and nothing else. The picture is not a Grafana screenshot and says so: it shows what the queries return,
with the board's own layout, titles, units, colours and thresholds. Variables are filled in as Grafana does (see `fill`), and only
those panel types, units and transformations are known that the boards here use.
"""

import argparse
import datetime
import json
import math
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from html import escape

SCRAPE = 15  # seconds: the data source's scrape interval, from which Grafana derives $__rate_interval
WIDTH, MARGIN, ROW, GAP = 1440, 12, 31, 6
COLUMN = (WIDTH - 2 * MARGIN) / 24
TEXT, DIM, GRID, PAPER, PANEL, EDGE = "#24292e", "#6a737d", "#e9ebee", "#f4f5f5", "#ffffff", "#dcdfe3"
NICE = [1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600, 7200, 10800, 21600, 43200, 86400]
UTC = datetime.timezone.utc


# ---- asking -------------------------------------------------------------------------------------------------------


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)([smhd])", text).groups()
    return int(number) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit]


def interval_of(length, points, least):
    wanted = length / points
    step = next((n for n in NICE if n >= wanted), NICE[-1])
    return max(step, least, math.ceil(length / 11000))


def fill(text, variables, interval, length):
    """$name and ${name} replaced: the board's variables, and the intervals by Grafana's rules."""
    known = {
        "__interval": f"{interval}s",
        "__rate_interval": f"{max(interval + SCRAPE, 4 * SCRAPE)}s",
        "__range": f"{length}s",
        "__range_s": str(length),
        **variables,
    }
    return re.sub(r"\$(?:(\w+)|\{(\w+)\})", lambda m: known[m[1] or m[2]], text)


class Source:
    """A Prometheus, and the time range that the picture shows."""

    def __init__(self, url, start, end):
        self.url, self.start, self.end = url.rstrip("/"), start, end
        self.length = end - start

    def get(self, path, **query):
        body = urllib.parse.urlencode(query, doseq=True).encode()
        try:
            with urllib.request.urlopen(self.url + path, body, timeout=120) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{self.url} says: {json.load(error).get('error')}\n{query}") from error

    def variables(self, board, given):
        values = {"datasource": "prometheus"}
        for variable in board["templating"]["list"]:
            name = variable["name"]
            if name in given:
                values[name] = given[name]
            elif variable["type"] == "query":
                if variable.get("includeAll"):
                    values[name] = variable["allValue"]
                    continue
                selector, label = re.fullmatch(r"label_values\((.*),\s*(\w+)\)", variable["query"]["query"], re.S).groups()
                match = fill(selector, values, 60, self.length)
                series = self.get("/api/v1/series", **{"match[]": match, "start": self.start, "end": self.end})
                found = sorted({s[label] for s in series if label in s}, reverse=variable.get("sort") in (2, 4))
                values[name] = found[0] if found else ""
        return values

    def range(self, expr, interval):
        start, end = (t - t % interval for t in (self.start, self.end))
        data = self.get("/api/v1/query_range", query=expr, start=start, end=end, step=interval)
        return [(s["metric"], [(t, float(v)) for t, v in s["values"]]) for s in data["result"]]

    def instant(self, expr):
        data = self.get("/api/v1/query", query=expr, time=self.end)
        return [(s["metric"], [(s["value"][0], float(s["value"][1]))]) for s in data["result"]]

    def panel(self, panel, variables):
        """{refId: [(metric, points, legend)]} and the step."""
        points = panel.get("maxDataPoints", panel["gridPos"]["w"] * 75)
        interval = interval_of(self.length, points, seconds(panel.get("interval", f"{SCRAPE}s")))
        answers = {}
        for target in panel["targets"]:
            expr = fill(target["expr"], variables, interval, self.length)
            series = self.instant(expr) if target["instant"] else self.range(expr, interval)
            answers[target["refId"]] = [(m, p, legend(target.get("legendFormat", ""), m)) for m, p in series]
        return answers, interval


def legend(template, metric):
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda m: metric.get(m[1], ""), template).strip()


# ---- numbers as people read them ----------------------------------------------------------------------------------


def scaled(value, steps, decimals):
    for size, name in steps:
        if abs(value) >= size:
            break
    number = f"{value / size:.{decimals if decimals is not None else (0 if value % size == 0 else 1)}f}"
    return f"{number} {name.removesuffix('s') if number == '1' and name == 'days' else name}"


def shown(value, unit, decimals=None):
    if value is None or math.isnan(value):
        return "unknown"
    if unit in ("s", "dtdurations"):
        if value == 0:
            return "0 s"
        steps = [(86400, "days"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs")]
        return scaled(value, steps, decimals if abs(value) < 60 and abs(value) >= 1 else None)
    if unit == "bytes":
        return scaled(value, [(2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B")], decimals)
    if unit == "percentunit":
        return f"{100 * value:.{0 if value * 100 % 1 < 1e-9 else 1}f} %"
    if unit == "dateTimeAsIso":
        return datetime.datetime.fromtimestamp(value / 1000, UTC).strftime("%Y-%m-%d %H:%M")
    suffix = {"cps": "/s", "cpm": "/min", "m": " min", "h": " h"}.get(unit, "")
    if decimals is None:
        decimals = 0 if float(value).is_integer() else 1 if abs(value) >= 1 else 2
    return f"{value:,.{decimals}f}{suffix}"


def ticks(low, high, count=4, unit="none"):
    """Round values from low to high: round in the unit that people read, so whole minutes and whole mebibytes."""
    raw = ((high - low) or 1) / count
    size = 10 ** math.floor(math.log10(raw))
    steps = [m * size for m in (1, 2, 2.5, 5, 10)]
    if unit in ("s", "dtdurations") and raw > 1:
        steps = NICE + [86400 * n for n in (2, 5, 10, 20, 50, 100)]
    elif unit == "bytes" and raw >= 1:
        steps = [m * 2**n for n in range(0, 60, 10) for m in (1, 2, 5, 10, 20, 50, 100, 200, 500)]
    step = next(s for s in steps if s >= raw)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


# ---- the board's own settings -------------------------------------------------------------------------------------


def mapped(value, mappings):
    """The text and colour that a value mapping gives, or None."""
    for mapping in mappings:
        if mapping["type"] == "special" and (value is None or math.isnan(value)):
            return mapping["options"]["result"]["text"], mapping["options"]["result"]["color"]
        if mapping["type"] == "value" and value is not None and not math.isnan(value):
            result = mapping["options"].get(f"{value:g}")
            if result:
                return result["text"], result["color"]
    return None


def threshold_colour(value, thresholds):
    colour = "transparent"
    for step in thresholds["steps"]:
        if step["value"] is None or value >= step["value"]:
            colour = step["color"]
    return colour


def field(panel, ref=None, name=None):
    """The field configuration of one series: defaults, then the overrides that match it."""
    defaults = panel["fieldConfig"]["defaults"]
    config = {**defaults, "custom": dict(defaults.get("custom", {}))}
    for override in panel["fieldConfig"]["overrides"]:
        how, what = override["matcher"]["id"], override["matcher"]["options"]
        if (
            (how == "byFrameRefID" and what == ref)
            or (how == "byName" and what == name)
            or (how == "byRegexp" and name is not None and re.search(what.strip("/"), name))
        ):
            for setting in override["properties"]:
                value = setting.get("value")
                if setting["id"].startswith("custom."):
                    config["custom"][setting["id"][7:]] = value
                else:
                    config[setting["id"]] = value
    return config


def shade(colour, index):
    """Later series of one colour are lighter."""
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    part = min(0.22 * index, 0.66)
    return "#" + "".join(f"{round(c + (255 - c) * part):02x}" for c in rgb)


# ---- transformations ----------------------------------------------------------------------------------------------


def table_rows(panel, answers):
    """The rows and the column names after the panel's transformations."""
    many = sum(1 for series in answers.values() if series) > 1
    rows, columns = {}, []
    kinds = {t["id"]: t["options"] for t in panel["transformations"]}
    for ref, series in answers.items():
        for metric, points, _ in series:
            row = rows.setdefault(tuple(sorted(metric.items())), dict(metric))
            row[f"Value #{ref}" if many else "Value"] = points[-1][1]
    rows = list(rows.values())
    if "groupingToMatrix" in kinds:
        matrix = kinds["groupingToMatrix"]
        grouped = {}
        for row in rows:
            cells = grouped.setdefault(row[matrix["rowField"]], {})
            cells[row[matrix["columnField"]]] = row[matrix["valueField"]]
            if row[matrix["columnField"]] not in columns:
                columns.append(row[matrix["columnField"]])
        corner = f"{matrix['rowField']}\\{matrix['columnField']}"
        rows = [{corner: key, **cells} for key, cells in grouped.items()]
        columns = [corner, *sorted(columns)]
    organize = kinds.get("organize", {})
    order = organize.get("indexByName", {})
    columns = columns or sorted(order, key=order.get)
    columns = [c for c in columns if not organize.get("excludeByName", {}).get(c)]
    names = organize.get("renameByName", {})
    rows = [{names.get(c, c): row.get(c) for c in columns} for row in rows]
    for sort in kinds.get("sortBy", {}).get("sort", []):
        rows.sort(key=lambda row: row[sort["field"]], reverse=sort.get("desc", False))
    return rows, [names.get(c, c) for c in columns]


# ---- drawing ------------------------------------------------------------------------------------------------------


class Canvas:
    def __init__(self):
        self.parts, self.clips = [], 0

    def add(self, part):
        self.parts.append(part)

    def rect(self, x, y, w, h, fill, edge=None, radius=0, opacity=None):
        more = (f' stroke="{edge}"' if edge else "") + (f' rx="{radius}"' if radius else "") + (f' opacity="{opacity}"' if opacity else "")
        self.add(f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(w, 0):.1f}" height="{max(h, 0):.1f}" fill="{fill}"{more}/>')

    def text(self, x, y, text, size=11, fill=TEXT, anchor="start", bold=False, width=None, turn=None):
        if width is not None:
            most = max(int(width / (size * 0.55)), 1)
            text = text if len(text) <= most else text[: most - 1] + "…"
        more = (' font-weight="600"' if bold else "") + (f' text-anchor="{anchor}"' if anchor != "start" else "")
        more += f' transform="rotate({turn} {x:.1f} {y:.1f})"' if turn else ""
        self.add(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" fill="{fill}"{more}>{escape(text)}</text>')

    def line(self, x1, y1, x2, y2, colour, width=1.0, dash=None):
        more = f' stroke-dasharray="{dash}"' if dash else ""
        self.add(f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="{colour}" stroke-width="{width:g}" fill="none"{more}/>')

    def curve(self, runs, base, colour, width, opacity, dash, steps):
        """Runs of (x, y) in pixels, each drawn by itself: a gap stays a gap."""
        drawn = []
        for run in runs:
            points = thinned(run)
            path = f"M{points[0][0]} {points[0][1]}"
            x, y = points[0]
            for nx, ny in points[1:]:
                if steps:
                    path += f"h{nx - x}" if nx != x else ""
                    path += f"v{ny - y}" if ny != y else ""
                elif ny == y:
                    path += f"h{nx - x}"
                elif nx == x:
                    path += f"v{ny - y}"
                else:
                    path += f"l{nx - x} {ny - y}"
                x, y = nx, ny
            if len(points) == 1:
                path += "h1"
            drawn.append((path, points[0][0], x))
        if opacity:
            area = "".join(f"{path}V{base}H{left}Z" for path, left, _ in drawn)
            self.add(f'<path d="{area}" fill="{colour}" fill-opacity="{opacity / 100:g}"/>')
        more = f' stroke-dasharray="{dash}"' if dash else ""
        self.add(f'<path d="{"".join(p for p, _, _ in drawn)}" fill="none" stroke="{colour}" stroke-width="{width:g}" stroke-linejoin="round"{more}/>')


def thinned(run):
    """At most the first, lowest, highest and last point of each pixel column, as whole pixels."""
    columns = {}
    for x, y in run:
        columns.setdefault(round(x), []).append(round(y))
    out = []
    for x, ys in columns.items():
        keep = [ys[0], min(ys), max(ys), ys[-1]]
        for y in keep:
            if not out or out[-1] != (x, y):
                out.append((x, y))
    flat = out[:1]
    for here, after in zip(out[1:], out[2:] + [None]):
        if after and flat[-1][1] == here[1] == after[1]:
            continue
        flat.append(here)
    return flat


def graph(canvas, panel, box, curves, x_range, x_ticks, marks=()):
    """curves: (name, config, [(x, y or nan)], gap) with x in data units."""
    x0, y0, w, h = box
    defaults = panel["fieldConfig"]["defaults"]
    custom, unit = defaults["custom"], defaults["unit"]
    numbers = [v for _, _, points, _ in curves for _, v in points if not math.isnan(v)]
    if not numbers:
        canvas.text(x0 + w / 2, y0 + h / 2, defaults["noValue"], 13, DIM, "middle")
        return
    low = min([*numbers, defaults.get("min", min(numbers))])
    high = max([*numbers, custom.get("axisSoftMax", -math.inf)])
    if high == low:
        high = low + 1
    high += (high - low) * 0.04
    marks_y = ticks(low, high, unit=unit)
    labels = [shown(t, unit, None) for t in marks_y]
    left = x0 + 10 + 6 * max(len(label) for label in labels)
    right, top, bottom = x0 + w - 8, y0 + 4, y0 + h - 32
    px = lambda x: left + (x - x_range[0]) / (x_range[1] - x_range[0]) * (right - left)  # noqa: E731
    py = lambda y: bottom - (y - low) / (high - low) * (bottom - top)  # noqa: E731
    for tick, label in zip(marks_y, labels):
        canvas.line(left, py(tick), right, py(tick), GRID)
        canvas.text(left - 5, py(tick) + 3.5, label, 10, DIM, "end")
    for x, label in x_ticks((right - left) / 70):
        canvas.line(px(x), top, px(x), bottom, GRID)
        canvas.text(px(x), bottom + 13, label, 10, DIM, "middle")
    for x, colour in marks:
        canvas.line(px(x), top, px(x), bottom, colour, 1, "3 3")
    if custom["thresholdsStyle"]["mode"] != "off":
        for step in defaults["thresholds"]["steps"]:
            if step["value"] is not None and low <= step["value"] <= high:
                canvas.line(left, py(step["value"]), right, py(step["value"]), step["color"], 1, "7 4")
    shades, entries = {}, []
    for name, config, points, gap in curves:
        mode = config["color"]
        colour = mode.get("fixedColor", "#0072B2")
        if mode["mode"] == "shades":
            shades[colour] = shades.get(colour, -1) + 1
            colour = shade(colour, shades[colour])
        runs, last = [], None
        for x, y in points:
            if math.isnan(y):
                last = None
                continue
            if last is None or x - last > gap:
                runs.append([])
            runs[-1].append((px(x), py(y)))
            last = x
        style = config["custom"]
        dash = " ".join(str(d) for d in style.get("lineStyle", {}).get("dash", [])) or None
        if runs:
            canvas.curve(runs, round(py(max(low, 0))), colour, style["lineWidth"] + 0.3, style["fillOpacity"], dash, style["lineInterpolation"] == "stepAfter")
        entries.append((name, colour))
    legend_line(canvas, x0 + 10, y0 + h - 7, w - 16, entries)


def legend_line(canvas, x, y, width, entries):
    share = width / max(min(len(entries), max(1, int(width / 150))), 1)
    for name, colour in entries[: max(1, int(width / share + 0.01))]:
        canvas.rect(x, y - 5, 10, 3, colour)
        canvas.text(x + 14, y, name, 10, DIM, width=share - 20)
        x += share


def clock_ticks(start, end):
    def make(count):
        step = next((n for n in (300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400, 172800, 432000) if (end - start) / n <= count), 864000)
        form = "%H:%M" if step < 86400 else "%m-%d"
        first = start + -start % step
        return [(t, datetime.datetime.fromtimestamp(t, UTC).strftime(form)) for t in range(int(first), int(end) + 1, step)]

    return make


def draw_timeseries(canvas, panel, box, answers, interval, source, marks):
    curves = []
    for ref, series in answers.items():
        for _, points, name in series:
            curves.append((name, field(panel, ref, name), points, 1.5 * interval))
    graph(canvas, panel, box, curves, (source.start, source.end), clock_ticks(source.start, source.end), marks)


def draw_trend(canvas, panel, box, answers, interval, source, marks):
    x_name = panel["options"]["xField"]
    hours = next((dict(points) for series in answers.values() for _, points, name in series if name == x_name), {})
    curves = []
    for ref, series in answers.items():
        for _, points, name in series:
            if name != x_name:
                curves.append((name, field(panel, ref, name), [(hours[t], v) for t, v in points if t in hours], 1.5 * interval / 3600))
    axis = field(panel, "X", x_name)
    span = (axis["min"], axis["max"])
    graph(canvas, panel, box, curves, span, lambda count: [(t, f"{t:g}") for t in range(span[0], span[1] + 1, 2 if count > 12 else 4)])


def draw_stat(canvas, panel, box, answers, *_):
    x, y, w, h = box
    defaults = panel["fieldConfig"]["defaults"]
    values = [(name, points[-1][1]) for series in answers.values() for _, points, name in series]
    if not values:
        canvas.text(x + w / 2, y + h / 2 + 6, defaults["noValue"], 18, DIM, "middle")
        return
    each = (h - 6) / len(values)
    for i, (name, value) in enumerate(values):
        text, colour = mapped(value, defaults["mappings"]) or (
            shown(value, defaults["unit"], defaults.get("decimals")),
            threshold_colour(value, defaults["thresholds"]),
        )
        top = y + i * each
        painted = panel["options"]["colorMode"] == "background"
        if painted:
            canvas.rect(x + 5, top, w - 10, each - 4, colour, radius=3)
        ink = "#ffffff" if painted else colour
        if each < 40 and len(values) > 1:
            canvas.text(x + 10, top + each / 2 + 2, name, 9.5, "#ffffff" if painted else DIM, width=w - 30 - 8 * len(text))
            canvas.text(x + w - 10, top + each / 2 + 2, text, 12, ink, "end", True)
            continue
        size = min(30, each * 0.45, (w - 24) / max(len(text), 1) / 0.56)
        middle = top + each / 2 + (size * 0.3 if len(values) == 1 else size * 0.55)
        canvas.text(x + w / 2, middle, text, size, ink, "middle", True)
        if len(values) > 1:
            canvas.text(x + w / 2, top + 14, name, 9.5, "#ffffff" if painted else DIM, "middle", width=w - 14)


def draw_timeline(canvas, panel, box, answers, interval, source, _marks):
    x, y, w, h = box
    rows = [(ref, name, points) for ref, series in answers.items() for _, points, name in series]
    if not rows:
        canvas.text(x + w / 2, y + h / 2, panel["fieldConfig"]["defaults"]["noValue"], 13, DIM, "middle")
        return
    names, top, bottom = 290, y + 2, y + h - 20
    left, right = x + names, x + w - 8
    px = lambda t: left + (t - source.start) / (source.end - source.start) * (right - left)  # noqa: E731
    each = (bottom - top) / len(rows)
    for t, label in clock_ticks(source.start, source.end)((right - left) / 70):
        canvas.text(px(t), bottom + 14, label, 10, DIM, "middle")
    for i, (ref, name, points) in enumerate(rows):
        config = field(panel, ref, name)
        canvas.text(left - 6, top + (i + 0.5) * each + 3.5, name, 10, TEXT, "end", width=names - 10)
        runs = []
        for t, v in points:
            if runs and runs[-1][2] == v and t - runs[-1][1] <= 1.5 * interval:
                runs[-1][1] = t
            else:
                runs.append([t, t, v])
        for a, b, v in runs:
            text, colour = mapped(v, config["mappings"]) or (f"{v:g}", DIM)
            wide = px(min(b + interval, source.end)) - px(a)
            canvas.rect(px(a), top + i * each + 2, wide, each - 4, colour, opacity=0.85)
            if wide > 10 + 6 * len(text):
                canvas.text(px(a) + 5, top + (i + 0.5) * each + 3.5, text, 10, "#ffffff", bold=True)


def draw_table(canvas, panel, box, answers, *_):
    x, y, w, h = box
    rows, columns = table_rows(panel, answers)
    cells = []
    for row in rows:
        line = []
        for column in columns:
            config, value = field(panel, None, column), row[column]
            if isinstance(value, str):
                line.append((value, None))
            else:
                paint = "cellOptions" in config["custom"] and config["custom"]["cellOptions"]["type"] == "color-background"
                colour = threshold_colour(value, config["thresholds"]) if paint and value is not None else None
                text = config["noValue"] if value is None else shown(value, config["unit"], config.get("decimals"))
                line.append((text, None if colour == "transparent" else colour))
        cells.append(line)
    letters = [max(len(c) * 1.06, *(len(line[i][0]) for line in cells), 4) if cells else len(c) for i, c in enumerate(columns)]
    size = min(10.5, (w - 16 - 13 * len(columns)) / sum(letters) / 0.57)
    want = [n * size * 0.57 + 13 for n in letters]
    scale = (w - 16) / sum(want)
    left = x + 8
    for i, column in enumerate(columns):
        wide = want[i] * scale
        canvas.text(left + 5, y + 14, column, size, DIM, bold=True)
        for j, line in enumerate(cells[: int((h - 30) / 24)]):
            text, colour = line[i]
            top = y + 24 + j * 24
            if colour:
                canvas.rect(left, top, wide - 3, 21, colour, radius=2)
            canvas.text(left + 5, top + 15, text, size, "#ffffff" if colour else TEXT)
            canvas.line(left, top + 22.5, left + wide, top + 22.5, GRID)
        left += wide


def draw_bars(canvas, panel, box, answers, *_):
    x, y, w, h = box
    rows, columns = table_rows(panel, answers)
    defaults = panel["fieldConfig"]["defaults"]
    names = columns[1:]
    if not rows or not names:
        canvas.text(x + w / 2, y + h / 2, defaults["noValue"], 13, DIM, "middle")
        return
    high = max(v for row in rows for v in (row[n] for n in names) if v is not None) * 1.15 or 1
    marks = ticks(0, high, unit=defaults["unit"])
    labels = [shown(t, defaults["unit"]) for t in marks]
    left = x + 10 + 6 * max(len(label) for label in labels)
    right, top, bottom = x + w - 8, y + 4, y + h - 34
    py = lambda v: bottom - v / high * (bottom - top)  # noqa: E731
    for tick, label in zip(marks, labels):
        canvas.line(left, py(tick), right, py(tick), GRID)
        canvas.text(left - 5, py(tick) + 3.5, label, 10, DIM, "end")
    colours = [shade(defaults["color"]["fixedColor"], i) for i in range(len(names))]
    slot = (right - left) / len(rows)
    for i, row in enumerate(rows):
        canvas.text(left + (i + 0.5) * slot, bottom + 13, row[columns[0]], 10, DIM, "middle")
        wide = slot * 0.7 / len(names)
        for j, name in enumerate(names):
            if row[name] is None:
                continue
            start = left + (i + 0.15) * slot + j * wide
            canvas.rect(start, py(row[name]), wide * 0.9, bottom - py(row[name]), colours[j], opacity=0.85)
            canvas.text(start + wide * 0.45, py(row[name]) - 4, shown(row[name], defaults["unit"], defaults.get("decimals")), 10, TEXT, "middle")
    if defaults["custom"]["thresholdsStyle"]["mode"] != "off":
        for step in defaults["thresholds"]["steps"]:
            if step["value"] is not None and step["value"] <= high:
                canvas.line(left, py(step["value"]), right, py(step["value"]), step["color"], 1, "7 4")
    legend_line(canvas, x + 10, y + h - 7, w - 16, list(zip(names, colours)))


DRAW = {
    "timeseries": draw_timeseries,
    "trend": draw_trend,
    "stat": draw_stat,
    "state-timeline": draw_timeline,
    "table": draw_table,
    "barchart": draw_bars,
}


def draw(board, source, variables, note):
    canvas = Canvas()
    head = 66 if note else 50
    panels = board["panels"]
    height = head + MARGIN + ROW * max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in panels)
    canvas.rect(0, 0, WIDTH, height, PAPER)
    when = [datetime.datetime.fromtimestamp(t, UTC).strftime("%Y-%m-%d %H:%M") for t in (source.start, source.end)]
    canvas.text(MARGIN + 2, 24, board["title"], 18, bold=True)
    canvas.text(WIDTH - MARGIN - 2, 22, f"{when[0]} to {when[1]} UTC", 12, DIM, "end")
    canvas.text(MARGIN + 2, 42, "preview drawn from query results; not a Grafana screenshot", 12.5, "#D55E00", bold=True)
    if note:
        canvas.text(MARGIN + 2, 58, note, 11, DIM)
    chosen = ", ".join(f"{k}: {'All' if v == '.+' else v}" for k, v in variables.items() if k != "datasource")
    canvas.text(WIDTH - MARGIN - 2, 42, chosen, 11, DIM, "end", width=900)
    marks = []
    for annotation in board["annotations"]["list"]:
        interval = interval_of(source.length, 1800, seconds(annotation["step"]))
        for _, points in source.range(fill(annotation["expr"], variables, interval, source.length), interval):
            marks += [(t, annotation["iconColor"]) for t, v in points if v > 0]
    for panel in panels:
        g = panel["gridPos"]
        x, y = MARGIN + g["x"] * COLUMN, head + g["y"] * ROW
        w, h = g["w"] * COLUMN - GAP, g["h"] * ROW - GAP
        title = fill(panel["title"], variables, 60, source.length)
        if panel["type"] == "row":
            canvas.text(x + 4, y + 19, title, 14, bold=True)
            continue
        canvas.rect(x, y, w, h, PANEL, EDGE, 3)
        canvas.text(x + 10, y + 18, title, 12, bold=True, width=w - 16)
        answers, interval = source.panel(panel, variables)
        DRAW[panel["type"]](canvas, panel, (x, y + 26, w, h - 28), answers, interval, source, marks)
    body = "\n".join(canvas.parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f"font-family=\"Inter, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif\">\n{body}\n</svg>\n"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("board")
    parser.add_argument("out")
    parser.add_argument("--at", default="now")
    parser.add_argument("--range")
    parser.add_argument("--var", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--note", default="")
    options = parser.parse_args()
    with open(options.board, encoding="utf-8") as file:
        board = json.load(file)
    if options.at == "now":
        end = int(datetime.datetime.now(UTC).timestamp())
    elif re.fullmatch(r"\d+", options.at):
        end = int(options.at)
    else:
        end = int(datetime.datetime.fromisoformat(options.at.replace("Z", "+00:00")).timestamp())
    length = seconds(options.range or board["time"]["from"].removeprefix("now-"))
    source = Source(options.url, end - length, end)
    variables = source.variables(board, dict(v.split("=", 1) for v in options.var))
    picture = draw(board, source, variables, options.note)
    with open(options.out, "w", encoding="utf-8") as file:
        file.write(picture)
    print(f"{options.out}: {len(picture.encode())} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
