#!/usr/bin/env bash
# Runs the attack suite end to end, once for each way to keep tenants apart: a SQLite file each, and on PostgreSQL shared
# tables, a schema each, a database each. Prints the number of generated cases and of leaks of each.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$HOME/.cargo/bin:$PATH"

eval "$(scripts/test-postgres.sh --for $$ | sed 's/^/export /')"
for way in sqlite postgres postgres-schema postgres-database; do
    printf 'attacks: %s\n' "$way" >&2
    ATELIER_TEST_DATABASE=$way cargo test -p atelier-server --test end_to_end -- attacks --nocapture || failed=yes
done
[ "${failed:-no}" = no ]
