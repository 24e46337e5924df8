#!/usr/bin/env bash
# Breaks the modules that hold the walls in every small way that cargo-mutants knows, one at a time, and runs their
# tests; then takes the tenant's predicate out of each statement of the control database. A change that no test notices is
# printed as MISSED. Takes two or three hours; docs/mutation-run.md has the verdicts.
# Arguments go to cargo mutants in place of the usual files: scripts/mutants.sh -p atelier-access -f '*/policy.rs'
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$HOME/.cargo/bin:$PATH"

cargo mutants --version >/dev/null 2>&1 || cargo install cargo-mutants --locked
eval "$(scripts/test-postgres.sh --for $$ | sed 's/^/export /')"
# Smaller and sooner built; nothing here is debugged.
export CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_TEST_DEBUG=0

mutate() { cargo mutants --no-shuffle --timeout 240 "$@" || [ $? = 2 ]; }
if [ $# -gt 0 ]; then
    mutate "$@"
    exit
fi
mutate --output target/mutants-access -p atelier-access
mutate --output target/mutants-store -p atelier-store \
    -f crates/store/src/keys.rs -f crates/store/src/tenants.rs -f crates/store/src/places.rs \
    -f crates/store/src/sql/mod.rs -f crates/store/src/sql/postgres.rs -- --test store
scripts/statement-mutants.py || [ $? = 2 ]
