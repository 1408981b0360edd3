#!/usr/bin/env bash
# One run of the benchmark: a release build from nothing, the measurements, and the documents that are made from them.
#
#   SECONDS_EACH=1 WORKLOADS=observing,heavy KEEP_BUILD=1 RESULTS=target/try.json benches/run.sh    a short try
#
# With RESULTS the documents stay as they are, and the results are there.
set -euo pipefail
cd "$(dirname "$0")/.."

export EXPORTER=$PWD/target/bench/release/prompt-redis-exporter
cargo fetch --quiet --locked
# What measures and what writes the documents is built first: nothing else may run beside the measurements.
cargo bench --quiet --profile dev --bench speed --no-run
cargo test --quiet --test it --no-run
if [ -z "${KEEP_BUILD:-}" ] || [ ! -x "$EXPORTER" ]; then
    rm -rf target/bench
    begun=$SECONDS
    cargo build --quiet --release --locked --offline --bin prompt-redis-exporter --target-dir target/bench
    export BUILD_SECONDS=$((SECONDS - begun)) SECONDS_BEFORE=$SECONDS
fi
if [ -n "${RESULTS:-}" ]; then
    exec cargo bench --quiet --profile dev --bench speed
fi
RESULTS=docs/performance.json cargo bench --quiet --profile dev --bench speed
UPDATE=1 cargo test --quiet --test it performance
.tools/venv/bin/python benches/chart.py docs/performance.json docs/performance.svg
