#!/usr/bin/env bash
# Each fuzz target for some seconds, beginning with its seeds. A find is in fuzz/artifacts, with the command that repeats it.
#
#   scripts/fuzz.sh [SECONDS]
set -euo pipefail
cd "$(dirname "$0")/.."

# The coverage that libFuzzer needs is an unstable option of the compiler, which stable compilers take with this.
export RUSTC_BOOTSTRAP=1
for seeds in fuzz/seeds/*; do
    target=$(basename "$seeds")
    mkdir -p "fuzz/corpus/$target"
    .tools/bin/cargo-fuzz run --sanitizer none "$target" "fuzz/corpus/$target" "$seeds" -- -max_total_time="${1:-60}" \
        -max_len=4096 -print_final_stats=1
done
