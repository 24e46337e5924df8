"""Reads what corpus.py wrote: one document is one file of one package."""

from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


# As corpus.py writes them, and as they travel.
OPENERS = {".gz": gzip.open, ".xz": lzma.open}


@dataclass(frozen=True)
class Document:
    """A source file and where it is from."""

    package: str
    language: str
    path: str
    text: str


def read(folder: Path, part: str) -> Iterator[Document]:
    """All documents of `train` or `held-out`, in the order of the corpus."""
    paths = sorted(path for path in folder.glob(f"{part}*.jsonl.*") if path.suffix in OPENERS)
    if not paths:
        raise SystemExit(f"{folder} has no {part} documents; run `python -m training.base.corpus all` first")
    for path in paths:
        with OPENERS[path.suffix](path, "rt", encoding="utf-8", newline="\n") as lines:
            for line in lines:
                yield Document(**json.loads(line))


# Characters of one run: processes that share the work then end at about the same time.
RUN_CHARACTERS_MAX = 1_500_000


def by_package(documents: Iterator[Document]) -> Iterator[list[Document]]:
    """Runs of documents of one package; a large one gives several."""
    group: list[Document] = []
    room = RUN_CHARACTERS_MAX
    for document in documents:
        if group and (document.package != group[0].package or room < 0):
            yield group
            group, room = [], RUN_CHARACTERS_MAX
        group.append(document)
        room -= len(document.text)
    if group:
        yield group
