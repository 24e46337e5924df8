#!/usr/bin/env bash
# Starts a PostgreSQL server for tests: a private one in a folder of its own, on a socket only, gone when the process
# that asked for it has ended. The test runner calls this once for each run (.config/nextest.toml) and gives the tests
# the variables that it prints. Without the test runner: export $(scripts/test-postgres.sh --for $$)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf 'test-postgres: %s\n' "$*" >&2; }

asked_by=$PPID
[ "${1:-}" = --for ] && asked_by=$2
hand_out() { printf '%s\n' "$@" >>"${NEXTEST_ENV:-/dev/stdout}"; }

# One that runs already serves.
[ -n "${ATELIER_TEST_POSTGRES:-}" ] && exit 0

find_programs() {
    local folder
    for folder in /usr/lib/postgresql/*/bin "$(dirname "$(command -v initdb || echo /)")"; do
        [ -x "$folder/initdb" ] && [ -x "$folder/postgres" ] && [ -x "$folder/psql" ] && programs=$folder
    done
    [ -n "${programs:-}" ]
}
if ! find_programs; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing the package postgresql, once"
        (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq postgresql) >&2
    fi
    find_programs || {
        say "PostgreSQL is missing: install its server and client programs (on Debian the package postgresql)"
        exit 1
    }
fi

# PostgreSQL does not run as root.
as=()
folder=$(mktemp -d /tmp/atelier-postgres.XXXXXX)
if [ "$(id -u)" = 0 ]; then
    user=postgres
    id "$user" >/dev/null 2>&1 || user=nobody
    chown "$user" "$folder"
    as=(setpriv --reuid="$user" --regid="$(id -g "$user")" --clear-groups)
fi
chmod 755 "$folder"

"${as[@]}" "$programs/initdb" --pgdata="$folder/data" --username=postgres --auth=trust --encoding=UTF8 --no-locale \
    --no-sync >"$folder/initdb.log" 2>&1 || { cat "$folder/initdb.log" >&2; exit 1; }
settings="-c listen_addresses= -c unix_socket_directories=$folder -c max_connections=400 -c shared_buffers=64MB
    -c log_min_messages=error"
# Nothing here outlives the run, so nothing needs to reach the disk; a measurement wants what a server really costs.
[ -n "${ATELIER_TEST_POSTGRES_DURABLE:-}" ] ||
    settings="$settings -c fsync=off -c full_page_writes=off -c synchronous_commit=off"
# A session of its own: whoever waits for this script's output must not wait for the server.
# shellcheck disable=SC2086
setsid "${as[@]}" "$programs/postgres" -D "$folder/data" $settings >"$folder/server.log" 2>&1 </dev/null &
server=$!
setsid bash -c "
    while kill -0 $asked_by 2>/dev/null && kill -0 $server 2>/dev/null; do sleep 1; done
    kill -QUIT $server 2>/dev/null
    while kill -0 $server 2>/dev/null; do sleep 0.1; done
    rm -rf '$folder'
" >/dev/null 2>&1 </dev/null &

for _ in $(seq 100); do
    "$programs/pg_isready" -q -h "$folder" && break
    kill -0 "$server" 2>/dev/null || { cat "$folder/server.log" >&2; exit 1; }
    sleep 0.1
done
# The owner of every test's database, and the role that owns nothing.
"$programs/psql" -qX -h "$folder" -U postgres -d postgres \
    -c 'CREATE ROLE atelier_owner LOGIN CREATEDB' -c 'CREATE ROLE atelier_app LOGIN'

hand_out "ATELIER_TEST_POSTGRES=$folder" "ATELIER_TEST_POSTGRES_PROGRAMS=$programs"
