"""Java and Go from Debian source packages, where the machine's apt has source entries."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from ..archive import read_member, source_files
from . import Fetched, Unavailable, run_client

# Debian's short names that SPDX spells otherwise.
SHORT_NAMES = {"expat": "MIT", "apache-2": "Apache-2.0", "apache-2.0": "Apache-2.0", "bsd-3-clauses": "BSD-3-Clause"}


def has_sources() -> bool:
    """Whether apt was told of any source packages."""
    try:
        listed = run_client(["apt-get", "indextargets", "--format", "$(CREATED_BY)"])
    except Unavailable:
        return False
    return "Sources" in listed.split()


def fetch(name: str, downloads: Path) -> Fetched:
    """Downloads a source package without unpacking it."""
    if not has_sources():
        raise Unavailable("apt has no source entries (Types: deb-src); Java and Go need them")
    into = downloads / f"debian-{name}"
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    run_client(["apt-get", "source", "--quiet", "--quiet", "--download-only", name], into)
    originals = sorted(path for path in into.iterdir() if ".orig.tar." in path.name and not path.name.endswith(".asc"))
    packaging = sorted(path for path in into.iterdir() if ".debian.tar." in path.name)
    if len(originals) != 1 or not packaging:
        raise Unavailable("the source package has no single original archive")
    version = originals[0].name.partition("_")[2].partition(".orig.")[0]
    copyright_text = read_member(packaging[0], "debian/copyright") or read_member(packaging[0], "copyright") or ""
    return Fetched(name, version, licence_of(copyright_text), source_files(originals[0]), [into])


def licence_of(copyright_text: str) -> str:
    """Every licence that the machine-readable file names for sources; the packaging's own does not count."""
    found: list[str] = []
    for paragraph in re.split(r"\n\s*\n", copyright_text):
        files = re.search(r"^Files:\s*(.+(?:\n .+)*)", paragraph, re.MULTILINE)
        licence = re.search(r"^License:\s*(\S.*)$", paragraph, re.MULTILINE)
        if files and licence and not all(path.startswith("debian/") for path in files.group(1).split()):
            found.append(spdx(licence.group(1)))
    return " AND ".join(f"({one})" for one in dict.fromkeys(found))


def spdx(written: str) -> str:
    words = re.split(r"(\s+|\(|\))", written.strip())
    return "".join(
        word.upper() if word.lower() in ("and", "or", "with") else SHORT_NAMES.get(word.lower(), word)
        for word in words
    )
