#!/usr/bin/env python3
"""Takes the tenant's predicate out of each statement of the control database, one at a time, and runs the store's tests.

Rows of every tenant lie side by side in that database, and on SQLite no policy stands beneath a statement that lost its
`tenant_id = $1`. cargo-mutants does not look into strings, so this does. Files are changed in place and put back. Prints
MISSED for each predicate that no test misses, and ends with 2 if there is one.
"""

import argparse
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STORE = "crates/store/src"
# What holds statements of the control database. A tenant's own tables lie in a file of their own on SQLite, and under
# row level security on PostgreSQL.
FILES = ["data_keys.rs", "erasing.rs", "keys.rs", "sign_in.rs", "sign_on.rs", "tenants.rs", "usage.rs", "organization"]
PREDICATE = re.compile(r"(?:\w+\.)?tenant_id = (\$\d+)")
RUN = ["cargo", "nextest", "run", "--package", "atelier-store"]
# Those on SQLite.
TESTS = [*RUN, "-E", "not test(/postgres/) & not test(/^(buckets|cancellation|damage|drift|jobs|moves|plain|walls)::/)"]
TEST_SECONDS_MAX = 300


def chosen(names):
    """All predicates of files and folders, or the one at a file's line."""
    for name in names:
        name, _, line = name.partition(":")
        path = ROOT / STORE / name
        if not path.exists():
            sys.exit(f"{name} is not beneath {STORE}")
        for file in sorted(path.rglob("*.rs")) if path.is_dir() else [path]:
            yield from ((file, at, mutated) for at, mutated in mutants(file) if line in ("", str(at)))


def mutants(path):
    """Each predicate of a file's own code, and the file without it. The parameter stays, or the numbers would be wrong."""
    text = path.read_text()
    code = text.split("#[cfg(test)]", 1)[0]
    for found in PREDICATE.finditer(code):
        line = code.count("\n", 0, found.start()) + 1
        yield line, text[: found.start()] + f"{found[1]} IS NOT NULL" + text[found.end() :]


def verdict(path, mutated):
    original = path.read_bytes()
    path.write_text(mutated)
    try:
        if subprocess.run([*RUN, "--no-run"], cwd=ROOT, capture_output=True).returncode != 0:
            return "UNVIABLE"
        tests = subprocess.run(TESTS, cwd=ROOT, capture_output=True, timeout=TEST_SECONDS_MAX)
        return "MISSED" if tests.returncode == 0 else "caught"
    except subprocess.TimeoutExpired:
        return "TIMEOUT"
    finally:
        path.write_bytes(original)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", default=FILES, help=f"files or folders beneath {STORE}, or FILE:LINE")
    parser.add_argument("--list", action="store_true", help="say what would be done")
    arguments = parser.parse_args()
    found = list(chosen(arguments.files))
    changed = subprocess.run(["git", "status", "--porcelain", STORE], cwd=ROOT, capture_output=True, text=True).stdout
    if changed and not arguments.list:
        sys.exit(f"commit or put away what is changed beneath {STORE} first: files there are changed and put back")
    if not arguments.list and subprocess.run(TESTS, cwd=ROOT, capture_output=True).returncode != 0:
        sys.exit("the tests fail as it is: mend them first")
    counts = Counter()
    for number, (path, line, mutated) in enumerate(found, 1):
        told = "" if arguments.list else verdict(path, mutated)
        counts[told] += 1
        print(f"{number}/{len(found)} {path.relative_to(ROOT)}:{line} {told}", flush=True)
    print(", ".join(f"{count} {told or 'predicates'}" for told, count in sorted(counts.items())))
    sys.exit(2 if counts["MISSED"] else 0)


if __name__ == "__main__":
    main()
