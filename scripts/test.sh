#!/usr/bin/env bash
# Runs every test of the workspace, then the examples in its documentation. Arguments go to the test runner, and leave
# the documentation out: scripts/test.sh -p atelier-model
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$HOME/.cargo/bin:$PATH"

# What stands on the store, but for what looks into SQLite's own files, what touches no rows (connections, certificates,
# commands, what is told of secrets, who signs tokens), and what takes long and touches none that others do not.
ON_POSTGRES='kind(test) & (package(atelier-platform) | package(atelier-server))
    - test(a_folder_of_a_newer_version_is_left_as_it_is) - test(damage::) - test(full_disk::)
    - test(exposure::) - test(tls::) - test(edge::) - test(commands::) - test(secrecy::)
    - test(keys_change_and_every_good_signature_counts) - test(an_issuer_that_hangs)
    - test(two_folders_in_two_styles_out) - test(case_05_every_role)'
# Where each tenant has a schema or a database of its own, what rests on it.
GENERATED='package(atelier-server) & (test(case_01_02_03_04) | test(life::))'

say() { printf 'test: %s\n' "$*" >&2; }

command -v cargo >/dev/null || {
    say "cargo is missing; install Rust with rustup, rust-toolchain.toml names the toolchain"
    exit 1
}

ATELIER_TEST_PYTHON=$(scripts/python-env.sh)
export ATELIER_TEST_PYTHON

if ! cargo nextest --version >/dev/null 2>&1; then
    say "installing cargo-nextest, once"
    cargo install cargo-nextest --locked || say "cargo-nextest cannot be installed; cargo test serves instead"
fi

if [ $# -eq 0 ]; then
    set -- --workspace
    with_documentation=yes
fi
# Tidy is among them, as the test repository_is_tidy of xtask. The store's tests run on SQLite and on PostgreSQL by
# themselves; what stands on the store runs on SQLite first and then, where it touches rows, on PostgreSQL.
if cargo nextest --version >/dev/null 2>&1; then
    # One more than there are processors: many tests wait for the clock, or for a server that waits for them.
    export NEXTEST_TEST_THREADS=$(($(getconf _NPROCESSORS_ONLN) + 1))
    cargo nextest run --no-fail-fast "$@" || failed=yes
    if [ "${with_documentation:-no}" = yes ]; then
        say "once more on PostgreSQL, what stands on the store"
        # The whole workspace again, so that it is built the same way, that is not at all.
        ATELIER_TEST_DATABASE=postgres cargo nextest run --no-fail-fast --workspace -E "$ON_POSTGRES" || failed=yes
        for way in postgres-schema postgres-database; do
            say "the attack suite's generated cases once more: $way"
            ATELIER_TEST_DATABASE=$way cargo nextest run --no-fail-fast --workspace -E "$GENERATED" || failed=yes
        done
    fi
else
    eval "$(scripts/test-postgres.sh --for $$ | sed 's/^/export /')"
    cargo test --no-fail-fast --all-targets "$@" || failed=yes
fi
if [ "${with_documentation:-no}" = yes ]; then
    cargo test --workspace --doc --quiet || failed=yes
    say "the base's recipe, what of it needs the standard library only"
    python3 -m unittest discover --start-directory training/base/tests --top-level-directory . --buffer || failed=yes
fi
[ "${failed:-no}" = no ]
