# `make` lists what there is. Rust, a C compiler and make suffice for `demo`; `test` also finds or installs PostgreSQL, Redis and Node.js.

# nextest runs the tests in parallel and ends with one line that says it all; cargo's own runner does as well.
NEXTEST := $(shell command -v cargo-nextest 2>/dev/null)
ifdef NEXTEST
TEST      := cargo nextest run --locked --no-fail-fast
TEST_LONG := cargo nextest run --locked --no-fail-fast --profile long --run-ignored all
else
TEST      := cargo test --locked --no-fail-fast
TEST_LONG := cargo test --locked --no-fail-fast -- --include-ignored
endif

DENY         := $(shell command -v cargo-deny 2>/dev/null)
# What the fuzzer finds grows in fuzz/grown; fuzz/corpus holds the seeds.
FUZZ_SECONDS ?= 300

.DEFAULT_GOAL := help
.PHONY: help demo test test-long lint audit bench pgo fuzz sqlx clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## build, fill a service with a real shop's history, ask it, and keep it running
	cargo run --locked -- demo

test: ## every test that takes seconds; finds or installs the programs that the tests start
	@scripts/services.sh
	$(TEST)

test-long: ## every test, the random ones in twenty times the rounds, and whole data sets (in CARTWRIGHT_DATASETS)
	@scripts/services.sh
	CARTWRIGHT_TEST_ROUNDS=20 PROPTEST_CASES=4096 $(TEST_LONG)

lint: ## formatting, clippy, documentation, dependencies, the API contract
	cargo fmt --all --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items --quiet
ifdef DENY
	cargo deny --locked check bans licenses sources
else
	scripts/deps.sh
endif
	cargo run --locked --quiet -- openapi | diff -u openapi.yaml -

audit: ## known vulnerabilities; fetches the advisory database
	cargo deny --locked check advisories

bench: ## the figures of docs/performance.md
	cargo bench --locked

pgo: ## the release build arranged by what ran under load; wants llvm-profdata (rustup component add llvm-tools) and redis-server
	@scripts/pgo.sh

fuzz: ## every fuzz target for FUZZ_SECONDS (300) each; wants a nightly toolchain and cargo-fuzz
	@rustup run nightly cargo --version >/dev/null 2>&1 || { \
		echo "make fuzz needs a nightly toolchain: rustup toolchain install nightly --profile minimal" >&2; exit 1; }
	@command -v cargo-fuzz >/dev/null || { \
		echo "make fuzz needs cargo-fuzz: cargo install cargo-fuzz --locked" >&2; exit 1; }
	cargo +nightly fuzz build
	@for target in $$(cargo +nightly fuzz list); do \
		echo "fuzz $$target for $(FUZZ_SECONDS) s"; \
		mkdir -p fuzz/grown/$$target; \
		cargo +nightly fuzz run $$target fuzz/grown/$$target fuzz/corpus/$$target -- -max_total_time=$(FUZZ_SECONDS) \
			-rss_limit_mb=1024 -max_len=65536 -timeout=10 -dict=fuzz/dictionary -print_final_stats=1 || exit 1; \
	done

sqlx: ## renew .sqlx after a statement or the schema changed; DATABASE_URL names an empty PostgreSQL database
	psql --quiet --no-psqlrc --set ON_ERROR_STOP=1 $(foreach file,$(sort $(wildcard migrations/postgres/*.sql)),--file $(file)) "$(DATABASE_URL)"
	rm -f .sqlx/query-*.json
	touch src/lib.rs
	SQLX_OFFLINE=false SQLX_OFFLINE_DIR="$(CURDIR)/.sqlx" DATABASE_URL="$(DATABASE_URL)" cargo check --locked --lib

clean: ## remove what was built and what the demo wrote
	cargo clean
	rm -rf data/demo
