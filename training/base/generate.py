"""Greedy completion with a key and value cache, one prompt at a time."""

from __future__ import annotations

import torch

from .model import Model
from .special import END, FIM_MIDDLE, FIM_PREFIX, FIM_SUFFIX
from .tokenizer import Vocabulary

PREFIX_TOKENS = 300
SUFFIX_TOKENS = 100


def prompt(vocabulary: Vocabulary, prefix: str, suffix: str, is_suffix_first: bool) -> list[int]:
    """Ids in the order that Atelier asks in, or in the other."""
    special = vocabulary.special
    before = vocabulary.encode(prefix)[-PREFIX_TOKENS:]
    after = vocabulary.encode(suffix)[:SUFFIX_TOKENS]
    if is_suffix_first:
        return [special(FIM_PREFIX), special(FIM_SUFFIX), *after, special(FIM_MIDDLE), *before]
    return [special(FIM_PREFIX), *before, special(FIM_SUFFIX), *after, special(FIM_MIDDLE)]


@torch.no_grad()
def complete(model: Model, vocabulary: Vocabulary, ids: list[int], tokens_max: int, one_line: bool = True) -> tuple[str, bool]:
    """What the model writes, and whether it set the end mark itself."""
    hidden, cache = model.hidden(torch.tensor([ids]), 0, None)
    end = vocabulary.special(END)
    written: list[int] = []
    for _ in range(tokens_max):
        token = int(model.head(hidden[:, -1]).argmax())
        if token == end:
            return vocabulary.decode(written), True
        written.append(token)
        if one_line and "\n" in vocabulary.decode(written):
            break
        hidden, cache = model.hidden(torch.tensor([[token]]), len(ids) + len(written) - 1, cache)
    return vocabulary.decode(written), False
