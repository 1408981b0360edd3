#!/usr/bin/env bash
# Builds the image from the Dockerfile and proves what is said of it, on a machine that reaches no container registry.
#
#   tests/deploy/image.sh           the exporter's image
#   tests/deploy/image.sh --night   and that of the simulated night, which compose.yaml uses
#
# The two base images are made here, with debootstrap and Debian's packages, under the names that the Dockerfile asks
# for. What stands in for them is a subset of the real ones: the build image has a C compiler and this machine's Rust
# (bind-mounted, it is too big to copy), the final one a C library, libgcc, certificates and nothing else. A program
# that runs on the subset runs on the real ones; that the real ones are what their names say is not proven here.
#
# Needs root, Debian 12, and 4 GB under TMPDIR. Takes some minutes: the build is a release build, made twice, the second
# time to see that the dependencies come out of the cache. Ends with "N passed, 0 failed", or stops at the first failure.
# STORAGE_DRIVER=vfs for kernels without overlayfs (slower, and about 13 GB).
set -euo pipefail
cd "$(dirname "$0")/../.."

with_night=
case "${1:-}" in
"") ;;
--night) with_night=yes ;;
*) echo "usage: tests/deploy/image.sh [--night]" >&2; exit 2 ;;
esac

started=$SECONDS
checks=0
say() { printf 'image: %4ds  %s\n' "$((SECONDS - started))" "$*"; }
pass() { checks=$((checks + 1)); say "ok    $*"; }
fail() { say "FAIL  $*"; printf '%d passed, 1 failed\n' "$checks"; exit 1; }
need() { command -v "$1" >/dev/null 2>&1 || fail "$1 is missing: apt-get install --no-install-recommends $2"; }

[ "$(id -u)" = 0 ] || fail "debootstrap and buildah's chroot isolation need root"
need buildah buildah
need debootstrap debootstrap
need redis-server redis-server
need curl curl
need rustc "nothing: Rust comes from rustup"

rust_image=$(sed -n 's/^FROM \(.*\) AS dependencies$/\1/p' Dockerfile)
base_image=$(sed -n 's/^FROM \(.*\) AS exporter$/\1/p' Dockerfile)
wanted=$(printf '%s' "$rust_image" | sed -E 's/.*:([0-9]+\.[0-9]+).*/\1/')
toolchain=$(cd / && rustc --print sysroot)
case "$("$toolchain/bin/rustc" --version)" in
"rustc $wanted".*) ;;
*) fail "the Dockerfile asks for Rust $wanted, this machine has $("$toolchain/bin/rustc" --version)" ;;
esac

work=$(mktemp -d "${TMPDIR:-/tmp}/image-test.XXXXXX")
storage=(--root "$work/storage" --runroot "$work/run" --storage-driver "${STORAGE_DRIVER:-overlay}")
# The policy is named because a machine may have none in /etc/containers. Nothing is pulled: the names are all local.
printf '{"default": [{"type": "insecureAcceptAnything"}]}\n' >"$work/policy.json"
build() { buildah "${storage[@]}" "$@"; }

exporter_pid=
redis_pid=
cleanup() {
    set +e
    [ -z "$exporter_pid" ] || kill "$exporter_pid" 2>/dev/null
    [ -z "$redis_pid" ] || kill "$redis_pid" 2>/dev/null
    wait 2>/dev/null
    [ -d "$work/ro" ] && umount "$work/ro" 2>/dev/null
    build umount --all >/dev/null 2>&1
    build rm --all >/dev/null 2>&1
    build rmi --all --force >/dev/null 2>&1
    # Overlay mounts that a killed build left behind must go first, or rm would walk through them.
    awk -v under="$work/" 'index($2, under) == 1 { print $2 }' /proc/mounts | sort -r | xargs -r umount 2>/dev/null
    rm -rf --one-file-system "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# --- the base images --------------------------------------------------------------------------------------------------

# An image out of a folder: commit_image NAME FOLDER [buildah config options]
commit_image() {
    local name=$1 folder=$2 container
    shift 2
    container=$(build from scratch)
    build add --quiet "$container" "$folder" / >/dev/null
    build config "$@" "$container"
    build commit --quiet --rm --signature-policy "$work/policy.json" "$container" "$name" >/dev/null
    rm -rf --one-file-system "$folder"
}

debootstrap --variant=minbase --include=gcc,libc6-dev,ca-certificates bookworm "$work/rust" >"$work/debootstrap.log" 2>&1 ||
    { tail -5 "$work/debootstrap.log"; fail "debootstrap"; }

# The final image is put together as distroless does it: Debian's packages unpacked, with no package manager and no
# shell. The build image's apt fetches them, since it knows bookworm's newest, whatever this machine runs.
mkdir -p "$work/base/etc"
# libc6 and libgcc-s1 are what the program links; the rest is what a program expects of any system.
packages=(base-files netbase tzdata libc6 libgcc-s1 gcc-12-base)
cp /etc/resolv.conf "$work/rust/etc/resolv.conf"
(cd "$work/rust/tmp" && chroot "$work/rust" sh -c 'cd /tmp && apt-get download "$@"' - "${packages[@]}") >/dev/null 2>&1 ||
    fail "apt-get download ${packages[*]}"
for package in "$work/rust/tmp/"*.deb; do dpkg-deb --extract "$package" "$work/base"; done
rm -rf "$work/base/usr/share/doc" "$work/base/usr/share/zoneinfo" "$work/rust/tmp/"*.deb "$work/rust/var/cache/apt/archives"
mkdir -p "$work/base/etc/ssl/certs"
cp "$work/rust/etc/ssl/certs/ca-certificates.crt" "$work/base/etc/ssl/certs/"
printf 'root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n' >"$work/base/etc/passwd"
printf 'root:x:0:\nnonroot:x:65532:\n' >"$work/base/etc/group"

commit_image "$rust_image" "$work/rust" --env PATH=/usr/local/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    --env CARGO_HOME=/usr/local/cargo
commit_image "$base_image" "$work/base" --user 65532 --workingdir /home/nonroot \
    --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    --env SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
say "base images made: $rust_image, $base_image"

# --- the build --------------------------------------------------------------------------------------------------------

# A copy, so that nobody's editing changes the context under the build, and so that we can edit it.
mkdir "$work/context"
tar -c --exclude=./target --exclude=./.git --exclude=./.tools . | tar -x -C "$work/context"

revision=0123456789ab
# The certificates are this machine's, which may trust a proxy of its own.
build_image() { # TARGET NAME LOG
    build build --isolation chroot --network host --layers --pull-never --signature-policy "$work/policy.json" \
        --volume "$toolchain:/usr/local/rust:ro" \
        --volume /etc/ssl/certs/ca-certificates.crt:/etc/ssl/certs/ca-certificates.crt:ro \
        --build-arg PROMPT_REDIS_EXPORTER_REVISION="$revision" \
        --target "$1" --tag "$2" "$work/context" >"$3" 2>&1 || { tail -30 "$3"; fail "buildah build --target $1"; }
}
before=$SECONDS
build_image exporter localhost/prompt-redis-exporter:test "$work/first.log"
first=$((SECONDS - before))
pass "buildah $(buildah --version | awk '{ print $3 }') builds the Dockerfile, in ${first} s"

printf '\n// A change that a developer makes.\n' >>"$work/context/src/main.rs"
before=$SECONDS
build_image exporter localhost/prompt-redis-exporter:test "$work/second.log"
second=$((SECONDS - before))
# STEP lines name the instruction, and the next line says whether it came out of the cache.
cached=$(awk '/^(\[[0-9]+\/[0-9]+\] )?STEP .*cargo build/ { step = $0 } /Using cache/ && step { print step; step = "" }' "$work/second.log")
case "$cached" in
*"sed -i"*) ;;
*) grep -E "STEP|cache" "$work/second.log"; fail "a change in src compiles the dependencies again" ;;
esac
grep -q "Compiling prompt-redis-exporter" "$work/second.log" || fail "a change in src was not compiled"
! grep -q "Compiling tokio " "$work/second.log" || fail "a change in src compiled tokio again"
pass "a change in src takes the dependencies from the cache: ${second} s"

# --- what the image is ------------------------------------------------------------------------------------------------

image=localhost/prompt-redis-exporter:test
inspect() { build inspect --type image --format "$1" "$image"; }
user=$(inspect '{{.OCIv1.Config.User}}')
[ "$user" = 65532:65532 ] || fail "user is $user"
pass "user $user"

entrypoint=$(inspect '{{index .OCIv1.Config.Entrypoint 0}}')
[ "$entrypoint" = /usr/local/bin/prompt-redis-exporter ] || fail "entrypoint is $entrypoint"
for label in title description source licenses version revision; do
    value=$(inspect "{{index .OCIv1.Config.Labels \"org.opencontainers.image.$label\"}}")
    [ -n "$value" ] || fail "label org.opencontainers.image.$label is empty"
    case "$label" in
    revision) [ "$value" = "$revision" ] || fail "label revision is $value" ;;
    version) [ "$value" = "$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)" ] || fail "label version is $value" ;;
    esac
done
pass "entrypoint $entrypoint, labels"

container=$(build from --pull-never --signature-policy "$work/policy.json" "$image")
base_container=$(build from --pull-never --signature-policy "$work/policy.json" "$base_image")
root=$(build mount "$container")
base_root=$(build mount "$base_container")
list() { (cd "$1" && find . -xdev ! -type d -printf '%P\n' | LC_ALL=C sort); }
added=$(comm -13 <(list "$base_root") <(list "$root"))
[ "$added" = usr/local/bin/prompt-redis-exporter ] || fail "the image adds: $added"
[ -z "$(comm -23 <(list "$base_root") <(list "$root"))" ] || fail "the image removes files of its base"
pass "it adds one file to its base: /$added"

size=$(stat -c %s "$root/$added")
grown=$(($(du -sb "$root" | cut -f1) - $(du -sb "$base_root" | cut -f1)))
[ "$grown" -lt $((12 * 1000 * 1000)) ] || fail "$grown bytes beyond its base"
[ "$size" -le "$grown" ] || fail "the program has $size bytes, the image grew by $grown"
pass "$(awk -v b="$grown" 'BEGIN { printf "%.1f MB", b / 1e6 }') beyond its base (under 12 MB is asked)"

for mode in 4000 2000 0002; do
    found=$(find "$root" -xdev -type f -perm "-$mode" | head -3)
    [ -z "$found" ] || fail "files with mode $mode: $found"
done
[ "$(stat -c '%u:%g %a' "$root/$added")" = "0:0 755" ] || fail "the program is $(stat -c '%u:%g %a' "$root/$added")"
pass "root owns the program, nobody else may write it, nothing is setuid"

shells=$(find "$root" -xdev \( -name sh -o -name bash -o -name dash -o -name busybox -o -name ash -o -name perl -o -name 'python3*' \) ! -type d)
[ -z "$shells" ] || fail "a shell or interpreter: $shells"
run() { build run --isolation chroot --network host "$container" -- "$@"; }
if run /bin/sh -c true >"$work/sh.log" 2>&1; then fail "/bin/sh runs"; fi
grep -qi "no such file\|not found" "$work/sh.log" || { cat "$work/sh.log"; fail "/bin/sh is there, or something else is wrong"; }
pass "no shell: $(grep -i "no such file\|not found" "$work/sh.log" | head -1 | cut -c1-100)"

# --- what it does -----------------------------------------------------------------------------------------------------

version=$(run "$entrypoint" --version)
case "$version" in
*"$revision"*"$wanted".*) ;;
*) fail "--version says: $version" ;;
esac
pass "--version says: $version"

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
redis_port=$(free_port)
port=$(free_port)
redis-server --port "$redis_port" --bind 127.0.0.1 --save '' --dir "$work" >"$work/redis.log" 2>&1 &
redis_pid=$!
for _ in $(seq 50); do redis-cli -p "$redis_port" ping >/dev/null 2>&1 && break; sleep 0.1; done
redis-cli -p "$redis_port" xgroup create instrument:lsstcam lsstcam_consumer_group '$' mkstream >/dev/null
for _ in 1 2 3; do redis-cli -p "$redis_port" xadd instrument:lsstcam '*' detector 1 >/dev/null; done

run "$entrypoint" --redis.url "redis://127.0.0.1:$redis_port" --stream instrument:lsstcam=lsstcam_consumer_group \
    --web.listen-address "127.0.0.1:$port" >"$work/exporter.log" 2>&1 &
exporter_pid=$!
page=
for _ in $(seq 100); do
    page=$(curl -fsS "http://127.0.0.1:$port/metrics" 2>/dev/null) && break
    sleep 0.1
done
[ -n "$page" ] || { cat "$work/exporter.log"; fail "no page"; }
for line in 'redis_up 1' 'redis_stream_group_messages_undelivered{stream="instrument:lsstcam",group="lsstcam_consumer_group"} 3'; do
    grep -qxF "$line" <<<"$page" || { echo "$page"; fail "the page lacks: $line"; }
done
grep -q "revision=\"$revision\"" <<<"$page" || fail "build_info has no revision $revision"
pass "the container's page of a real Redis: redis_up 1, 3 undelivered, revision $revision"
[ "$(curl -fsS -o /dev/null -w '%{http_code}' "http://127.0.0.1:$port/-/healthy")" = 200 ] || fail "/-/healthy"
[ "$(curl -fsS -o /dev/null -w '%{http_code}' "http://127.0.0.1:$port/-/ready")" = 200 ] || fail "/-/ready"

# `buildah run` is a parent of the program. The program is found as the one that holds our port.
program_pid=
for candidate in /proc/[0-9]*; do
    if { tr '\0' ' ' <"$candidate/cmdline"; } 2>/dev/null | grep -q "^$entrypoint .*127.0.0.1:$port"; then
        program_pid=${candidate#/proc/}
    fi
done
[ -n "$program_pid" ] || fail "the program is not among the processes"
uid=$(awk '/^Uid:/ { print $2 }' "/proc/$program_pid/status")
[ "$uid" = 65532 ] || fail "it runs as user $uid"
pass "it runs as user 65532"

kill -TERM "$program_pid"
status=0
wait "$exporter_pid" || status=$?
exporter_pid=
[ "$status" = 0 ] || { cat "$work/exporter.log"; fail "SIGTERM gives exit status $status"; }
pass "SIGTERM ends it with status 0"

# A container's root can be read-only (the chart asks for it). Buildah's chroot isolation cannot do that, so the image's
# own tree is mounted read-only, and the program runs in it.
mkdir "$work/ro"
mount --bind "$root" "$work/ro"
mount -o remount,bind,ro "$work/ro"
chroot --userspec=65532:65532 "$work/ro" "$entrypoint" --redis.url "redis://127.0.0.1:$redis_port" \
    --web.listen-address "127.0.0.1:$port" >"$work/exporter.log" 2>&1 &
exporter_pid=$!
page=
for _ in $(seq 100); do
    page=$(curl -fsS "http://127.0.0.1:$port/metrics" 2>/dev/null) && break
    sleep 0.1
done
grep -qxF 'redis_up 1' <<<"$page" || { cat "$work/exporter.log"; fail "no redis_up 1 with a read-only root"; }
kill -TERM "$exporter_pid"
wait "$exporter_pid" || fail "SIGTERM gives exit status $?"
exporter_pid=
umount "$work/ro"
pass "a read-only root is enough"

# --- the simulated night ----------------------------------------------------------------------------------------------

if [ -n "$with_night" ]; then
    before=$SECONDS
    build_image night localhost/prompt-redis-night:test "$work/night.log"
    pass "buildah builds the night, in $((SECONDS - before)) s"
    night=$(build from --pull-never --signature-policy "$work/policy.json" localhost/prompt-redis-night:test)
    help=$(build run --isolation chroot "$night" -- /usr/local/bin/observing_night --help 2>&1) || fail "the night's --help: $help"
    # The options that compose.yaml gives it.
    for option in --redis.url --instrument --speed-up --bootstrap --visits; do
        grep -q -- "$option" <<<"$help" || fail "the night has no $option"
    done
    pass "the night runs, and knows the options of compose.yaml"
fi

say "done"
printf '%d passed, 0 failed\n' "$checks"
