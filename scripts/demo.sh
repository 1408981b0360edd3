#!/usr/bin/env bash
# Nights of observing on a Redis of its own, faster than real time, with the exporter in front of it, and a table of what
# its metrics say. `make demo` calls it.
#
#   EXPORTER=target/release/prompt-redis-exporter NIGHT=target/release/examples/observing_night \
#       scripts/demo.sh [REDIS-SERVER]
#
# Ends on Ctrl-C or after DEMO_SECONDS, with status 0, and leaves nothing behind. DEMO_SPEED is how much faster than
# real time the nights are. Needs bash and the usual small tools; uses redis-cli and curl where they are.
set -euo pipefail
cd "$(dirname "$0")/.."

exporter=${EXPORTER:-target/release/prompt-redis-exporter}
night=${NIGHT:-target/release/examples/observing_night}
seconds=${DEMO_SECONDS:-}
speed=${DEMO_SPEED:-15}
instruments=(lsstcam hsc latiss)
# The group of comcam is never created.
streams=(--stream='instrument:*' --stream=instrument:comcam=comcam_consumer_group)

say() { printf '%s\n' "$@"; }
has() { command -v "$1" >/dev/null 2>&1; }
alive() { kill -0 "$1" 2>/dev/null; }

# fail SENTENCE [LOG]: with the end of the log that tells why.
fail() {
    printf 'demo: %s\n' "$1" >&2
    if [ -f "${2:-}" ]; then tail -n 5 "$2" >&2; fi
    exit 1
}

temp=$(mktemp -d "${TMPDIR:-/tmp}/prompt-redis-demo.XXXXXX")
redis_pid='' exporter_pid='' night_pids=()

stop() {
    local pid
    for pid in "$@"; do kill "$pid" 2>/dev/null || true; done
    for pid in "$@"; do wait "$pid" 2>/dev/null || true; done
}

# The nights first, so that they finish their numbers while there is a Redis. Everything is stopped before anything is
# printed: the terminal may be gone.
clean_up() {
    local status=$?
    set +e
    trap '' INT TERM HUP PIPE
    stop ${night_pids[@]+"${night_pids[@]}"}
    stop $exporter_pid $redis_pid
    if [ "$status" = 0 ]; then
        what_the_nights_did
        what_next
    fi
    rm -rf "$temp"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 0' INT TERM
trap 'exit 1' HUP PIPE

what_the_nights_did() {
    local log
    say "" "What the nights did, by their own count (the last two of each):"
    for log in "$temp"/*.numbers; do
        if [ -f "$log" ]; then tail -n 2 "$log" | sed 's/^/  /'; fi
    done
} 2>/dev/null

what_next() {
    cat <<'END'

Next, on a Redis of your own:
  cargo install --locked --path .
  prompt-redis-exporter status --redis.url=redis://HOST:6379 --stream='*'    one look, in the terminal
  prompt-redis-exporter --redis.url=redis://HOST:6379 --stream='*'           then open http://localhost:10036/
Alerts and dashboards: docs/alerts-and-dashboards.md. All options: prompt-redis-exporter --help.
END
} 2>/dev/null

# pause() reads from this pipe, into which nobody writes: no sleep process is left behind.
mkfifo "$temp/silence"
exec 9<>"$temp/silence"
pause() { read -r -t "$1" -u 9 || true; }

# The server that was named, or the newest redis-server there is: on PATH, or installed for the tests.
find_server() {
    local candidate
    if [ -n "${1:-}" ]; then
        has "$1" || fail "$1 is not there"
        say "$1"
        return
    fi
    for candidate in redis-server .tools/bin/redis-server-*; do
        if has "$candidate"; then say "$("$candidate" --version | sed -n 's/.*v=\([0-9.]*\).*/\1/p') $candidate"; fi
    done | sort -V | tail -n 1 | cut -d ' ' -f 2
}

# redis-server cannot choose a free port, so try some. The log of this process says when it is ready.
start_redis() {
    local try
    for try in 1 2 3 4 5 6 7 8 9 10; do
        port=$((12000 + RANDOM % 20000))
        "$server" --port "$port" --bind 127.0.0.1 --save '' --appendonly no --dir "$temp" --logfile '' \
            >"$temp/redis.log" 2>&1 9<&- </dev/null &
        redis_pid=$!
        while alive "$redis_pid"; do
            if grep -q 'eady to accept connections' "$temp/redis.log"; then return; fi
            pause 0.1
        done
    done
    fail "$server does not start, tried $try ports" "$temp/redis.log"
}

# Sends one command, with redis-cli or else inline over a socket, and prints the reply.
redis() {
    local answer
    if has redis-cli; then
        answer=$(redis-cli -h 127.0.0.1 -p "$port" "$@")
    else
        exec 8<>"/dev/tcp/127.0.0.1/$port"
        printf '%s\r\n' "$*" >&8
        read -r -t 5 answer <&8
        exec 8<&-
        answer=${answer#+}
    fi
    say "${answer%$'\r'}"
}

bootstrap() {
    local answer instrument
    for instrument in hsc latiss lsstcam; do
        # As the procedures have it. The $ is for Redis, not for the shell.
        # shellcheck disable=SC2016
        answer=$(redis XGROUP CREATE "instrument:$instrument" "${instrument}_consumer_group" '$' mkstream)
        [ "$answer" = OK ] || fail "the stream of $instrument could not be created: $answer"
    done
}

start_exporter() {
    "$exporter" --redis.url="$redis_url" --web.listen-address=127.0.0.1:0 "${streams[@]}" \
        2>"$temp/exporter.log" 9<&- </dev/null &
    exporter_pid=$!
    address=
    while [ -z "$address" ]; do
        alive "$exporter_pid" || fail "the exporter does not start" "$temp/exporter.log"
        pause 0.1
        address=$(sed -n 's/.*serving.*addresses="*\[\([0-9.:]*\).*/\1/p' "$temp/exporter.log")
    done
}

# What goes wrong in each night, so that there is something to see. The stall is long enough for a finding: 200 s at the
# usual speed.
mishaps() {
    case $1 in
    lsstcam) say "--stall-at 4 --stall-for 3000 --workers-max 300 --died 0.001" ;;
    hsc) say "--trim-unread 3" ;;
    latiss) say "--died 0.1" ;;
    esac
}

# start_night INDEX
start_night() {
    local instrument=${instruments[$1]}
    # shellcheck disable=SC2046
    "$night" --redis.url="$redis_url" --instrument "$instrument" --visits 20 --speed-up "$speed" \
        $(mishaps "$instrument") >>"$temp/$instrument.numbers" 2>"$temp/$instrument.log" 9<&- </dev/null &
    night_pids[$1]=$!
}

# A night that is over is followed by the next.
keep_nights_going() {
    local index
    for index in "${!instruments[@]}"; do
        if alive "${night_pids[index]}"; then continue; fi
        wait "${night_pids[index]}" || fail "the night of ${instruments[index]} failed" "$temp/${instruments[index]}.log"
        start_night "$index"
    done
}

page() {
    local line
    if has curl; then
        curl --fail --silent --show-error --max-time 5 "http://$address/metrics"
    else
        exec 8<>"/dev/tcp/${address%:*}/${address##*:}"
        printf 'GET /metrics HTTP/1.0\r\nHost: %s\r\nConnection: close\r\n\r\n' "$address" >&8
        while IFS= read -r line <&8 && [ "$line" != $'\r' ]; do :; done
        cat <&8
        exec 8<&-
    fi
}

# The page's group metrics, a line for each group; - stands for an absent sample, and + for a lower bound.
table() {
    awk -v after="$SECONDS" '
        /^redis_stream_group_/ {
            name = $1; sub(/^redis_stream_group_/, "", name); sub(/\{.*/, "", name)
            group = $0; sub(/.*group="/, "", group); sub(/".*/, "", group)
            if (!(group in seen)) { seen[group] = 1; groups[++count] = group }
            value[group, name] = $NF
        }
        function cell(group, name) { return (group, name) in value ? value[group, name] : "-" }
        function waiting(group) {
            if ((group, "messages_undelivered") in value) return value[group, "messages_undelivered"]
            return cell(group, "messages_undelivered_at_least") ((group, "messages_undelivered_at_least") in value ? "+" : "")
        }
        function age(seconds) { return seconds == "-" ? "-" : sprintf("%.1f s", seconds) }
        END {
            row = "%-24s%8s%8s%13s%10s%9s%7s%11s\n"
            printf row, "after " after " s", "read", "lag", "undelivered", "oldest", "pending", "lost", "consumers"
            for (i = 1; i <= count; i++) {
                group = groups[i]
                printf row, group, cell(group, "entries_read"), cell(group, "lag"), \
                    waiting(group), age(cell(group, "oldest_undelivered_age_seconds")), \
                    cell(group, "messages_pending"), cell(group, "messages_lost"), cell(group, "consumers")
            }
        }'
}

# On a terminal the table is rewritten in place; elsewhere it is printed again.
show() {
    local text lines
    text=$(page | table) || fail "the page could not be read" "$temp/exporter.log"
    lines=$(grep -c '' <<<"$text")
    if [ -t 1 ]; then
        if [ "${shown:-0}" -gt 0 ]; then printf '\033[%dA\033[J' "$shown"; fi
        shown=$lines
        printf '%s\n' "$text"
    else
        printf '%s\n\n' "$text"
    fi
}

for program in "$exporter" "$night"; do
    has "$program" || fail "$program is not there; make demo builds it"
done
server=$(find_server "${1:-}")
[ -n "$server" ] || fail "no redis-server; scripts/install-tools.sh demo installs one"
start_redis
redis_url=redis://127.0.0.1:$port
bootstrap
start_exporter
for index in "${!instruments[@]}"; do start_night "$index"; done
cat <<END

Page:      http://localhost:${address##*:}/
Metrics:   http://localhost:${address##*:}/metrics
Terminal:  $exporter status --redis.url=$redis_url $(printf '%q ' "${streams[@]}")
Redis:     $("$server" --version | sed -E 's/.*(Redis|Valkey) server v=([0-9.]+).*/\1 \2/') on port $port, for this demo only

Three nights of observing, 20 visits each, $speed times as fast as real ones, one after the other. In each of them:
  comcam   was forgotten: it has no stream and no group. The page has the command that creates both
  lsstcam  stops reading for 200 s: what waits grows and gets old. The page warns after one minute
  hsc      loses half of a visit to a trim: on Redis 7 its lag then stays too high, on Redis 8 the loss shows until the
           group reads on
  latiss   has workers that die before they acknowledge: their messages stay pending
${seconds:+Ends after $seconds s. }Ctrl-C ends it.

END
SECONDS=0
while [ -z "$seconds" ] || [ "$SECONDS" -lt "$seconds" ]; do
    pause 2
    alive "$redis_pid" || fail "Redis ended" "$temp/redis.log"
    keep_nights_going
    show
done
