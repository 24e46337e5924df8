"""Packages by name, each with its ecosystem's ordinary client. No code of a package is run, and no host is named."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

# A client that hangs is given up after so many seconds.
CLIENT_SECONDS_MAX = 600


class Unavailable(Exception):
    """The package cannot be had here; the message says why, for the list of those left out."""


class ClientFailed(Unavailable):
    """The client gave nothing: the network may be why, so the next run asks again."""


@dataclass
class Fetched:
    """A package on disk."""

    name: str
    version: str
    # As its metadata writes it; empty where it writes none.
    licence: str
    # Pairs of path and text of the files that languages.py knows.
    files: Iterator[tuple[str, str]]
    # What may be deleted once the files were read.
    leftovers: list[Path] = field(default_factory=list)


def run_client(command: list[str], folder: Path | None = None) -> str:
    """Standard output of a package client, or Unavailable with the last line that it complained with."""
    # Its path would name this machine in the manifest.
    client = Path(command[0]).name
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=CLIENT_SECONDS_MAX
        )
    except FileNotFoundError as error:
        raise Unavailable(f"{client} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise ClientFailed(f"{client} gave no answer in {CLIENT_SECONDS_MAX} s") from error
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        told = next((line for line in reversed(lines) if "rror" in line), lines[-1] if lines else "no message")
        raise ClientFailed(f"{client}: {told[:200]}")
    return done.stdout
