"""Python packages as wheels: a source archive would run its own build to say what it is called."""

from __future__ import annotations

import re
import shutil
import sys
from email.parser import HeaderParser
from pathlib import Path

from ..archive import read_member, source_files
from . import Fetched, Unavailable, run_client

CLASSIFIER = "License :: OSI Approved :: "
# A licence field longer than this holds the licence's text.
LICENCE_CHARACTERS_MAX = 100


def fetch(name: str, downloads: Path) -> Fetched:
    """Downloads the newest wheel of a package."""
    into = downloads / name
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    run_client([*command, "--only-binary", ":all:", "--dest", str(into), name])
    wheels = sorted(into.glob("*.whl"))
    if len(wheels) != 1:
        raise Unavailable(f"pip gave {len(wheels)} wheels")
    headers = HeaderParser().parsestr(read_member(wheels[0], ".dist-info/METADATA") or "")
    return Fetched(name, str(headers.get("Version", "")), licence_of(headers), source_files(wheels[0]), [into])


def licence_of(headers) -> str:
    """The SPDX field where there is one, else the classifiers, else the short free text."""
    if expression := headers.get("License-Expression"):
        return str(expression)
    classifiers = [str(line) for line in headers.get_all("Classifier", []) if str(line).startswith("License ::")]
    # "License :: OSI Approved" alone names none; what is not OSI approved stays unknown, and so refused.
    names = [line.removeprefix(CLASSIFIER) for line in classifiers if line != CLASSIFIER.removesuffix(" :: ")]
    if names:
        # Several classifiers may mean "and" or "or"; every one must be allowed.
        return " AND ".join(bracketed(name) for name in names)
    written = str(headers.get("License", "")).strip()
    return written if len(written) <= LICENCE_CHARACTERS_MAX else ""


def bracketed(name: str) -> str:
    from ..licences import normalise

    found = normalise(name)
    # What the table does not know must stay refused, also as a part of a larger expression.
    return found if re.fullmatch(r"[A-Za-z0-9.-]+", found) else re.sub(r"[^A-Za-z0-9.-]+", "-", "unknown-" + found)
