"""Held-out places to complete: seeded, the same for every model, measured in pieces that no tokenizer decides."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass

from . import scopes
from .documents import Document

# Characters of context on either side that a prompt may have; each model then cuts to its own tokens.
PREFIX_CHARACTERS = 1_000
SUFFIX_CHARACTERS = 400
LINE_CHARACTERS_MAX = 120
# Files that give items, of each language.
ATTEMPTS = 8

PIECE = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Item:
    """A place, and the rest of its line as it was written."""

    language: str
    package: str
    path: str
    prefix: str
    suffix: str
    target: str


def choose(documents: Iterable[Document], per_language: int, seed: int) -> list[Item]:
    """So many items of each language, evenly over its packages: at a scope's start or a word within it, to the end of
    that line or of the scope, whichever comes first."""
    by_language: dict[str, dict[str, list[Document]]] = {}
    for document in documents:
        by_language.setdefault(document.language, {}).setdefault(document.package, []).append(document)
    chosen = []
    for language, packages in sorted(by_language.items()):
        chance = random.Random(f"{seed} {language}")
        names = sorted(packages)
        found: dict[tuple[str, int], Item] = {}
        for attempt in range(per_language * ATTEMPTS):
            if len(found) == per_language:
                break
            document = chance.choice(packages[names[attempt % len(names)]])
            if item := place(document, chance):
                found[document.path, len(item.prefix) + hash_of(item)] = item
        chosen += found.values()
    return chosen


def hash_of(item: Item) -> int:
    return sum(map(ord, item.prefix + item.target))


def place(document: Document, chance: random.Random) -> Item | None:
    """A random place of one file, or None where the draw is of no use."""
    text = document.text
    by_kind: list[list[scopes.Scope]] = [[] for _ in range(scopes.KINDS)]
    for scope in scopes.scopes(text, document.language, document.path):
        by_kind[scope[2]].append(scope)
    kinds = [found for found in by_kind if found]
    if not kinds:
        return None
    start, end, _ = chance.choice(chance.choice(kinds))
    if chance.random() < 0.5:
        start += chance.randrange(end - start)
        while start > 0 and (text[start - 1].isalnum() or text[start - 1] == "_"):
            start -= 1
    line_end = text.find("\n", start, end)
    end = line_end if line_end >= 0 else end
    target = text[start:end].rstrip()
    if not target.strip() or len(target) > LINE_CHARACTERS_MAX:
        return None
    prefix = text[max(0, start - PREFIX_CHARACTERS) : start]
    after = text[start + len(target) : start + len(target) + SUFFIX_CHARACTERS]
    return Item(document.language, document.package, document.path, prefix, after, target)


def agrees(written: str, target: str, pieces: int) -> bool:
    """Whether the first `pieces` words and signs of the first line are right; a shorter target must also end there."""
    wanted = PIECE.findall(target)
    got = PIECE.findall(first_line(written, target))
    return got[:pieces] == wanted[:pieces] if len(wanted) >= pieces else got == wanted


def first_line(written: str, target: str) -> str:
    """What was written up to the end of its first line; leading line breaks are wrong, so they end it."""
    return written.split("\n", 1)[0].rstrip() if not target.startswith("\n") else written
