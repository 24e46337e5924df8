"""JavaScript and TypeScript packages as `npm pack` gives them, without running their scripts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from ..archive import read_member, source_files
from . import Fetched, Unavailable, run_client


def fetch(name: str, downloads: Path) -> Fetched:
    """Downloads the newest tarball of a package."""
    into = downloads / name.replace("/", "--")
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    run_client(["npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", str(into), name])
    archives = sorted(into.glob("*.tgz"))
    if len(archives) != 1:
        raise Unavailable(f"npm gave {len(archives)} archives")
    description = json.loads(read_member(archives[0], "package.json") or "{}")
    return Fetched(
        name, str(description.get("version", "")), licence_of(description), source_files(archives[0]), [into]
    )


def licence_of(description: dict) -> str:
    """The `license` field, in today's form or the two that it had."""
    found = description.get("license") or description.get("licenses") or ""
    if isinstance(found, list):
        return " OR ".join(licence_of({"license": one}) for one in found)
    return str(found.get("type", "")) if isinstance(found, dict) else str(found)
