#!/usr/bin/env bash
# Makes target/base-env with what requirements.txt beside this names, once, and prints the path of its Python.
# A machine without a network uses its own Python and needs this not.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)

readonly environment="$root/target/base-env"
readonly requirements="$here/requirements.txt"
# A copy of the requirements that the environment was made from: equal means up to date.
readonly made_from="$environment/made-from.txt"

say() { printf 'base-env: %s\n' "$*" >&2; }

if cmp --silent "$requirements" "$made_from"; then
    printf '%s\n' "$environment/bin/python"
    exit 0
fi
command -v python3 >/dev/null && python3 -c 'import ensurepip, venv, sys; assert sys.version_info >= (3, 11)' || {
    say "Python 3.11 or newer with venv is missing (on Debian: apt-get install python3-venv)"
    exit 1
}
say "making $environment; PyTorch is large"
python3 -m venv --clear "$environment" >&2
if ! "$environment/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements" >&2; then
    say "pip could not install what $requirements names; is the network there?"
    exit 1
fi
cp "$requirements" "$made_from"
printf '%s\n' "$environment/bin/python"
