#!/usr/bin/env bash
# Makes .venv with what scripts/requirements.txt names, once, and prints the path of its Python on standard output.
# The tests run the unmodified OpenAI client in it; nothing of it is needed to build or to serve.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly environment="$PWD/.venv"
readonly requirements="$PWD/scripts/requirements.txt"
# A copy of the requirements that the environment was made from: equal means up to date.
readonly made_from="$environment/made-from.txt"

say() { printf 'python-env: %s\n' "$*" >&2; }

if cmp --silent "$requirements" "$made_from" && "$environment/bin/python" -c 'import openai' 2>/dev/null; then
    printf '%s\n' "$environment/bin/python"
    exit 0
fi

install_with_apt() {
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        say "python3 with venv and pip is missing; install it (on Debian: apt-get install python3-venv) and run this again"
        exit 1
    fi
    say "installing python3-venv"
    apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y python3 python3-venv >&2
}

has_venv() { command -v python3 >/dev/null && python3 -c 'import ensurepip, venv' 2>/dev/null; }

has_venv || install_with_apt
say "making $environment"
python3 -m venv --clear "$environment" >&2
if ! "$environment/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements" >&2; then
    say "pip could not install what $requirements names; is the network there?"
    exit 1
fi
cp "$requirements" "$made_from"
printf '%s\n' "$environment/bin/python"
