"""Cuts a text in three for fill-in-the-middle, and writes the three in either order.

The cut is between characters, not tokens: each part is tokenised by itself, so that tokens at the borders are those
that an editor's prompt has. prefix + middle + suffix is always the text.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

from .scopes import KINDS, Scope
from .special import END, FIM_MIDDLE, FIM_PREFIX, FIM_SUFFIX

# Share of cuts that ignore syntax even where there is some: people stop in odd places.
RANDOM_SHARE = 0.15
# Share of syntax cuts that begin inside their scope: completion is mostly asked for after something of it was typed.
INSIDE_SCOPE_SHARE = 0.5
# Share of cuts that end at the end of their first line: that is where most completions that an editor asks for end.
FIRST_LINE_SHARE = 0.35
RANDOM_SPAN_CHARACTERS_MAX = 200


@dataclass(frozen=True)
class Cut:
    """A text in three parts."""

    prefix: str
    middle: str
    suffix: str


def choose(text: str, places: list[Scope], start: int, end: int, chance: random.Random) -> Cut | None:
    """Cuts `text[start:end]`, at a scope within it where there is one; None for nothing to cut."""
    if start >= end:
        return None
    span = None
    if chance.random() >= RANDOM_SHARE:
        span = at_scope(places, start, end, chance)
    if span is None:
        first = chance.randrange(start, end)
        span = first, min(end, first + 1 + chance.randrange(RANDOM_SPAN_CHARACTERS_MAX))
    first, last = span
    if chance.random() < FIRST_LINE_SHARE:
        line_end = text.find("\n", first, last)
        last = line_end if line_end > first else last
    return Cut(text[start:first], text[first:last], text[last:end])


def at_scope(places: list[Scope], start: int, end: int, chance: random.Random) -> tuple[int, int] | None:
    """First a kind of scope, so that the many lines do not crowd out the few bodies, then one of that kind."""
    by_kind: list[list[Scope]] = [[] for _ in range(KINDS)]
    for index in range(bisect_left(places, (start,)), bisect_left(places, (end,))):
        if places[index][1] <= end:
            by_kind[places[index][2]].append(places[index])
    kinds = [found for found in by_kind if found]
    if not kinds:
        return None
    first, last, _ = chance.choice(chance.choice(kinds))
    if chance.random() < INSIDE_SCOPE_SHARE:
        first += chance.randrange(last - first)
    return first, last


class Writer:
    """Turns cuts into tokens."""

    def __init__(self, encode: Callable[[str], list[int]], special: Callable[[str], int]) -> None:
        self.encode = encode
        self.prefix, self.suffix, self.middle = special(FIM_PREFIX), special(FIM_SUFFIX), special(FIM_MIDDLE)
        self.end = special(END)

    def write(self, cut: Cut, is_suffix_first: bool, room: int) -> list[int]:
        """At most `room` tokens, the end mark after the middle; what is too much is taken from the far ends of the
        context, never from the middle. Empty where the middle alone is too much."""
        middle = self.encode(cut.middle)
        space = room - len(middle) - 4
        if space < 0:
            return []
        prefix, suffix = shorten(self.encode(cut.prefix), self.encode(cut.suffix), space)
        if is_suffix_first:
            # The form of Bavarian et al. 2022 that shares its marks with the other: an empty prefix, and the real
            # one at the head of the middle.
            return [self.prefix, self.suffix, *suffix, self.middle, *prefix, *middle, self.end]
        return [self.prefix, *prefix, self.suffix, *suffix, self.middle, *middle, self.end]


def shorten(prefix: list[int], suffix: list[int], space: int) -> tuple[list[int], list[int]]:
    """Drops the suffix's end, down to half of it, then the prefix's beginning."""
    excess = max(0, len(prefix) + len(suffix) - space)
    from_suffix = min(excess, len(suffix) // 2)
    kept_suffix = suffix[: len(suffix) - from_suffix]
    excess -= from_suffix
    kept_prefix = prefix[min(excess, len(prefix)) :]
    excess -= min(excess, len(prefix))
    return kept_prefix, kept_suffix[: len(kept_suffix) - excess]
