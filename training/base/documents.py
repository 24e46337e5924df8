"""Reads what corpus.py wrote: one document is one file of one package."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Document:
    """A source file and where it is from."""

    package: str
    language: str
    path: str
    text: str


def read(folder: Path, part: str) -> Iterator[Document]:
    """All documents of `train` or `held-out`, in the order of the corpus."""
    paths = sorted(folder.glob(f"{part}*.jsonl.gz"))
    if not paths:
        raise SystemExit(f"{folder} has no {part} documents; run `python -m training.base.corpus all` first")
    for path in paths:
        with gzip.open(path, "rt", encoding="utf-8", newline="\n") as lines:
            for line in lines:
                yield Document(**json.loads(line))


def by_package(documents: Iterator[Document]) -> Iterator[list[Document]]:
    """Runs of documents of one package."""
    group: list[Document] = []
    for document in documents:
        if group and document.package != group[0].package:
            yield group
            group = []
        group.append(document)
    if group:
        yield group
