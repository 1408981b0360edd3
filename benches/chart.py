"""Draws docs/performance.svg: latency and processor time of a scrape by number of streams.

    chart.py docs/performance.json docs/performance.svg
"""

import json
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter

# The streams of these workloads are alike; the others hold something else.
WORKLOADS = ["1 stream", "10 streams", "100 streams", "heavy", "vast"]
STYLES = {
    "floor": dict(color="#777777", linestyle="--", marker="None"),
    "prompt-redis-exporter": dict(color="#0b6e4f", marker="o"),
    "redis_exporter": dict(color="#c8102e", marker="s"),
    "Python poller": dict(color="#1f5fa8", marker="^"),
}


def points(results):
    """(streams, measured) in order, over a link without delay."""
    direct = [m for m in results["workloads"] if m["added_ms"] == 0 and m["workload"] in WORKLOADS]
    return sorted(((m["streams"], m) for m in direct), key=lambda point: point[0])


def exporters(measured, value):
    return {cost["exporter"]: value(cost) for cost in measured["exporters"]}


def draw(axes, results, title, value, floor):
    lines = {}
    for streams, measured in points(results):
        here = exporters(measured, value)
        if floor:
            here["floor"] = floor(measured["floor"])
        for name, number in here.items():
            lines.setdefault(name, []).append((streams, number))
    for name, style in STYLES.items():
        if name in lines:
            axes.plot(*zip(*lines[name]), label=name, linewidth=2, markersize=6, **style)
    axes.set(xscale="log", yscale="log", xlabel="streams", title=title)
    plain = FuncFormatter(lambda number, _: f"{number:,g}")
    axes.xaxis.set_major_formatter(plain)
    axes.yaxis.set_major_formatter(plain)
    axes.grid(True, which="major", color="#dddddd")
    axes.set_axisbelow(True)


def main(source, target):
    with open(source) as file:
        results = json.load(file)
    # The same results give the same bytes.
    plt.rcParams.update({"svg.hashsalt": "performance", "svg.fonttype": "none", "font.family": "sans-serif"})
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    median = lambda of: of["latency"]["p50_ms"]
    draw(left, results, "Time of a scrape, ms (median)", median, median)
    draw(right, results, "Exporter's processor time of a scrape, ms", lambda cost: cost["cpu_ms"], None)
    left.legend(frameon=False, fontsize=9)
    machine = results["machine"]
    figure.text(0, -0.04, f"{machine['cores']} cores, {machine['date']}, no added delay", fontsize=8, color="#555555")
    figure.savefig(target, metadata={"Date": None, "Creator": None}, bbox_inches="tight", facecolor="white")


if __name__ == "__main__":
    main(*sys.argv[1:])
