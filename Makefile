# The entries of this repository. `make` alone lists them; each line after ## is its help.

# What people see is release; what tests see is dev, where the crates that calculate are optimised all the same.
RUN := cargo run --release --

.DEFAULT_GOAL := help
.PHONY: help demo build test attacks mutants check bench bench-walls bench-personal fmt clean-data

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## See the whole line: two tenants, two styles, one base (ARGS="--tenant name=PATH" for your own code)
	@$(RUN) demo $(ARGS)

build: ## Build the server, optimised, as target/release/atelier
	cargo build --release

test: ## Run every test; installs the test runner and the OpenAI client where they are missing
	scripts/test.sh $(ARGS)

attacks: ## Run the attack suite on each database and separation; prints the number of generated cases and of leaks
	scripts/attacks.sh

mutants: ## Break the walls' own code in every small way and see whether a test notices; two or three hours
	scripts/mutants.sh $(ARGS)

check: ## Everything that must pass before a change is merged: format, lints, tidy, tests, documentation, licences
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo xtask tidy
	scripts/test.sh
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet
	@if cargo deny --version >/dev/null 2>&1; then cargo deny --all-features check; \
	else echo "check: cargo-deny is not installed, licences and advisories are unchecked (cargo install cargo-deny --locked)"; fi

bench: ## Measure speed; prints the figures and appends them to bench/results.jsonl
	cargo build --release -p atelier-server -p atelier-bench
	target/release/atelier-bench speed $(ARGS)

bench-walls: ## Measure what the walls between tenants cost (ARGS="--before PATH": beside a server from before them)
	cargo build --release -p atelier-server -p atelier-bench
	export $$(ATELIER_TEST_POSTGRES_DURABLE=1 scripts/test-postgres.sh --for $$PPID) && target/release/atelier-bench \
		walls --postgres "$$ATELIER_TEST_POSTGRES" --postgres-programs "$$ATELIER_TEST_POSTGRES_PROGRAMS" $(ARGS)

bench-personal: ## Measure what learning gains on well-known packages, fetched for the purpose (ARGS=--sweep: choose the rate)
	cargo build --release -p atelier-bench
	"$$(scripts/python-env.sh)" bench/personal.py $(ARGS)

fmt: ## Format every source file
	cargo fmt --all

clean-data: ## Delete ./atelier-data: tenants, adapters, usage, keys
	rm -rf atelier-data
