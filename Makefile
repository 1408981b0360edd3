# The two commands for a newcomer are `make demo` and `make test`. The rest are parts of them, or tools.

CARGO ?= cargo
export RUST_BACKTRACE ?= 0

.PHONY: demo test tools check unit e2e chart stress soak fuzz browser screenshots boards man image deny bench bench-instructions

## A simulated night of observing on the newest Redis that is here, and the exporter's page of it. Ends on Ctrl-C or
## after DEMO_SECONDS.
demo:
	@echo "1 of 3: looking for a Redis server, and installing one if there is none"
	@scripts/install-tools.sh demo
	@echo "2 of 3: building the exporter and the simulated night; the first time takes a few minutes"
	@$(CARGO) build $$(test -t 2 || echo --quiet) --bin prompt-redis-exporter --example observing_night
	@echo "3 of 3: starting Redis, the exporter and the night"
	@EXPORTER=target/debug/prompt-redis-exporter NIGHT=target/debug/examples/observing_night scripts/demo.sh

## Everything that must hold before a change lands.
test: tools check unit e2e chart

tools:
	scripts/install-tools.sh test

# The only place where warnings are errors: a newer compiler must not break a user's build.
check:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --quiet -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" $(CARGO) doc --no-deps --document-private-items --quiet

# Examples are built first: the tests run the simulated night.
unit:
	$(CARGO) build --examples --quiet
	$(CARGO) test --lib --test it --test stress

## Alerts, dashboards and runbook, end to end on real parts.
e2e:
	$(CARGO) build --examples --quiet
	$(CARGO) test --test e2e

## The chart, rendered by Helm and started as a process; compose.yaml, the unit file and the workflows.
chart:
	$(CARGO) build --quiet
	.tools/venv/bin/pytest --quiet tests/deploy

## Workloads and faults in full, and collections beside writers at full speed. Writes the tables of docs/reliability.md. Takes
## less than fifteen minutes on two quiet cores, so only a small form of it is part of `make test`.
stress:
	scripts/install-tools.sh test
	scripts/install-tools.sh stress
	$(CARGO) build --release --examples --quiet
	$(CARGO) test --release --test stress -- full

## A whole night of observing, sped up, with faults now and then and two scrapers: a part of `make stress`.
soak:
	scripts/install-tools.sh test
	$(CARGO) build --release --examples --quiet
	$(CARGO) test --release --test stress -- full night

## Input of any kind against the parsers, by cargo-fuzz: a minute for each target of fuzz/. `make test` tries the same with
## random changes to the seeds.
FUZZ_SECONDS ?= 60
fuzz:
	scripts/install-tools.sh fuzz
	scripts/fuzz.sh $(FUZZ_SECONDS)

## The page for people in a real Chromium. Installs it if it is not there, so it is not part of `make test`; .ci/run calls
## both.
browser:
	scripts/install-tools.sh browser
	$(CARGO) build --quiet
	npm test --prefix tests/browser --silent

## The pictures of the README, docs/images, from the state of the demo. Takes a good minute.
screenshots:
	scripts/install-tools.sh browser
	scripts/install-tools.sh screenshots
	$(CARGO) build --quiet --bin prompt-redis-exporter --example observing_night
	npm run screenshots --prefix tests/browser --silent

## The boards against the types of Grafana's own schema. Needs Node.js, and fetches the types and TypeScript from npm: not
## part of `make test`.
boards:
	scripts/install-tools.sh boards
	npm test --prefix tests/boards --silent

## The man page and the shells' completions, made from the options, in target/man. A release packs them.
man:
	$(CARGO) run --quiet --example man -- target/man

## Builds the image with buildah, on base images made here. Needs root; takes some ten minutes, so it is not part of
## `make test`.
image:
	scripts/install-tools.sh image
	tests/deploy/image.sh

## Licences, sources and known vulnerabilities of the dependencies. Fetches RustSec's database from GitHub: not part of
## `make test`.
deny:
	@command -v cargo-deny >/dev/null || { echo "cargo-deny is missing: cargo install cargo-deny --locked" >&2; exit 1; }
	$(CARGO) deny check

## Speed and memory beside the floor, redis_exporter and a poller, on real Redis servers: docs/performance.md, its chart
## and the README's table are written from one run. Needs a quiet machine and a quarter of an hour: not part of `make test`.
bench:
	scripts/install-tools.sh bench
	benches/run.sh

## Compares two revisions by the instructions of a scrape, which a busy machine does not change: BASE=REVISION, and
## the work tree or REVISION=. Takes minutes: not part of `make test`.
bench-instructions:
	scripts/install-tools.sh bench
	benches/instructions.sh "$(BASE)" "$(REVISION)"
