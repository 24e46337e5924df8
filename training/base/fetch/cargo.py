"""Rust crates by `cargo vendor` of a generated manifest.

A vendored manifest brings the dependencies along; only the crates that were asked for are read. Crates that cannot
stand in one manifest (two that link the same library, say) are found by halving.
"""

from __future__ import annotations

import os
import shutil
import tomllib
from pathlib import Path

from ..archive import folder_files
from . import Fetched, Unavailable, run_client

# Crates in one manifest: few enough that one that cannot be resolved costs little.
BATCH = 24


def fetch_all(names: list[str], downloads: Path) -> dict[str, Fetched | Unavailable]:
    """Vendors all, in batches."""
    found: dict[str, Fetched | Unavailable] = {}
    for start in range(0, len(names), BATCH):
        found |= fetch_batch(names[start : start + BATCH], downloads)
    return found


def fetch_batch(names: list[str], downloads: Path) -> dict[str, Fetched | Unavailable]:
    """Vendors these together, or halves them until those that refuse stand alone."""
    into = downloads / f"cargo-{names[0]}-{len(names)}"
    try:
        vendored = vendor(names, into)
    except Unavailable as problem:
        shutil.rmtree(into, ignore_errors=True)
        if len(names) == 1:
            return {names[0]: problem}
        half = len(names) // 2
        return fetch_batch(names[:half], downloads) | fetch_batch(names[half:], downloads)
    return {name: read_crate(name, vendored) for name in names}


def vendor(names: list[str], into: Path) -> Path:
    """Writes the manifest and vendors it; gives the folder of crates."""
    shutil.rmtree(into, ignore_errors=True)
    (into / "src").mkdir(parents=True)
    (into / "src" / "lib.rs").write_text("")
    dependencies = "".join(f'"{name}" = {{ version = "*", default-features = false }}\n' for name in names)
    manifest = '[package]\nname = "corpus"\nversion = "0.0.0"\nedition = "2021"\n\n[workspace]\n\n[dependencies]\n'
    (into / "Cargo.toml").write_text(manifest + dependencies)
    cargo = os.environ.get("CARGO", "cargo")
    run_client([cargo, "vendor", "--quiet", "--versioned-dirs", str(into / "vendor")], into)
    return into / "vendor"


def read_crate(name: str, vendored: Path) -> Fetched | Unavailable:
    """The newest vendored version of one crate."""
    folders = [folder for folder in vendored.glob(f"{name}-*") if is_version(folder.name.removeprefix(f"{name}-"))]
    if not folders:
        return Unavailable("cargo vendored no such folder")
    folder = max(folders, key=lambda found: version_key(found.name.removeprefix(f"{name}-")))
    package = tomllib.loads((folder / "Cargo.toml").read_text()).get("package", {})
    licence = str(package.get("license", ""))
    # The batch's folder is shared: whoever called deletes it when all were read.
    return Fetched(name, str(package.get("version", "")), licence, folder_files(folder), [vendored.parent])


def is_version(text: str) -> bool:
    return text[:1].isdigit()


def version_key(text: str) -> tuple[int, ...]:
    core = text.partition("+")[0].partition("-")[0]
    return tuple(int(part) if part.isdigit() else 0 for part in core.split("."))
