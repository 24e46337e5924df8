#!/usr/bin/env bash
# Runs every test of the workspace, then the examples in its documentation. Arguments go to the test runner, and leave
# the documentation out: scripts/test.sh -p atelier-model
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$HOME/.cargo/bin:$PATH"

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
# Tidy is among them, as the test repository_is_tidy of xtask.
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --no-fail-fast "$@"
else
    cargo test --no-fail-fast --all-targets "$@"
fi
if [ "${with_documentation:-no}" = yes ]; then
    cargo test --workspace --doc --quiet
fi
