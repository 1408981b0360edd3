# The two commands for a newcomer are `make demo` and `make test`. The rest are parts of them, or tools.

CARGO ?= cargo
export RUST_BACKTRACE ?= 0

.PHONY: demo test check unit bench tools

## A simulated night of observing on a Redis of its own, and the exporter's page of it. Ends on Ctrl-C or after
## DEMO_SECONDS.
demo:
	scripts/install-tools.sh demo
	$(CARGO) build --quiet --bin prompt-redis-exporter --example observing_night
	EXPORTER=target/debug/prompt-redis-exporter NIGHT=target/debug/examples/observing_night scripts/demo.sh

## Everything that must hold before a change lands.
test: tools check unit

tools:
	scripts/install-tools.sh test

check:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --quiet -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" $(CARGO) doc --no-deps --quiet

# Examples are built first: the tests run the simulated night.
unit:
	$(CARGO) build --examples --quiet
	$(CARGO) test

## Speed and memory beside a floor, on a real Redis. Minutes, and quiet machines only: not part of `make test`.
bench:
	$(CARGO) bench
