#!/usr/bin/env bash
# Builds two revisions and compares the instructions of a scrape.
#
#   benches/instructions.sh BASE [REVISION]    REVISION is the work tree if it is left out, changes of files that git knows included
#
# Exits with 1 where a scrape takes more than 2 % more instructions: then look why. The profiles stay beside the builds in
# target/instructions, for callgrind_annotate.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -n "${1:-}" ] || { echo "usage: make bench-instructions BASE=REVISION" >&2; exit 2; }

work_tree() {
    local stashed
    stashed=$(git stash create)
    echo "${stashed:-HEAD}"
}

# Prints where the build of a revision is. It has the names of its functions, and is otherwise what users run.
build() {
    local commit folder
    commit=$(git rev-parse --verify --quiet "$1^{commit}") || { echo "no revision $1" >&2; exit 2; }
    folder=target/instructions/$commit
    if [ ! -x "$folder/exporter" ]; then
        rm -rf "$folder" && mkdir -p "$folder/source"
        git archive "$commit" | tar --extract --directory "$folder/source"
        PROMPT_REDIS_EXPORTER_REVISION=${commit:0:12} CARGO_PROFILE_RELEASE_DEBUG=line-tables-only CARGO_PROFILE_RELEASE_STRIP=none \
            cargo build --quiet --release --locked --bin prompt-redis-exporter \
            --manifest-path "$folder/source/Cargo.toml" --target-dir target/instructions/build >&2
        cp target/instructions/build/release/prompt-redis-exporter "$folder/exporter"
    fi
    echo "$PWD/$folder/exporter"
}

base=$(build "$1")
new=$(build "${2:-$(work_tree)}")
exec cargo bench --quiet --profile dev --bench instructions -- "$base" "$new"
