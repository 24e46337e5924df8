"""Rows of tokens for training. A step takes rows that were seen least so far, at random: passes over all rows, where
none is added, and the new ones first where some are.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from .model import IGNORED
from .paths import ROWS_FIRST, needed


class Rows:
    """The rows that prepare.py wrote, mapped into memory. Of several folders the first must be whole; each other one
    joins when its index is there."""

    def __init__(self, folders: list[Path], pad: int) -> None:
        self.folders, self.pad = list(folders), pad
        self.first = json.loads(needed(folders[0] / "index.json", ROWS_FIRST).read_text())
        self.row_tokens, self.tokenizer = self.first["row_tokens"], self.first["tokenizer"]
        self.shards: list[np.ndarray] = []
        self.seen = np.zeros(0, np.uint32)
        self.waiting = list(folders)
        self.joined: list[str] = []
        self.counts: Counter[str] = Counter()
        self.refresh()

    def refresh(self) -> None:
        """Takes in the folders that are whole by now, in their order."""
        while self.waiting and (self.waiting[0] / "index.json").exists():
            folder = self.waiting.pop(0)
            index = json.loads((folder / "index.json").read_text())
            if (index["row_tokens"], index["tokenizer"]) != (self.row_tokens, self.tokenizer):
                # A run of hours does not end for a folder that came late and is wrong.
                print(f"{folder} is left out: its rows are of another width or tokenizer than {self.folders[0]}'s", flush=True)
                continue
            shards = [self.mapped(folder / name) for name in index["shards"]]
            if sum(map(len, shards)) != index["rows"]:
                raise SystemExit(f"{folder} does not hold the {index['rows']:,} rows of its index; prepare it anew")
            self.shards += shards
            self.seen = np.concatenate([self.seen, np.zeros(index["rows"], np.uint32)])
            self.counts.update(index["counts"])
            self.starts = np.cumsum([0, *map(len, self.shards)])
            self.joined.append(folder.name)
            if len(self.joined) > 1:
                print(f"{folder} joins, with {index['rows']:,} rows", flush=True)

    @property
    def count(self) -> int:
        return len(self.seen)

    def mapped(self, path: Path) -> np.ndarray:
        return np.memmap(path, np.uint16, "r").reshape(-1, self.row_tokens + 1)

    def restore(self, seen: torch.Tensor, joined: list[str]) -> None:
        """Goes on from a checkpoint, whose folders must come first and in their order."""
        if joined != self.joined[: len(joined)] or len(seen) > self.count:
            raise SystemExit(f"the run has seen rows of {', '.join(joined)}; give --rows the same folders first, in that order")
        self.seen[: len(seen)] = seen.numpy().astype(np.uint32)

    def step(self, step: int, rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets of a step, (rows, row_tokens); the rows follow from the seed and what was seen before."""
        chance = np.random.default_rng([seed, step])
        chosen: list[np.ndarray] = []
        while rows:
            least = np.flatnonzero(self.seen == self.seen.min())
            taken = chance.choice(least, min(rows, len(least)), replace=False, shuffle=False)
            self.seen[taken] += 1
            chosen.append(taken)
            rows -= len(taken)
        return self.tensors(np.stack([self.row(int(index)) for index in np.concatenate(chosen)]))

    def row(self, index: int) -> np.ndarray:
        shard = int(np.searchsorted(self.starts, index, "right")) - 1
        return self.shards[shard][index - self.starts[shard]]

    def valid(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """All rows of a validation set."""
        return self.tensors(np.array(self.mapped(self.folders[0] / f"{name}.u16")))

    def tensors(self, block: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        ids = torch.from_numpy(block.astype(np.int64))
        targets = ids[:, 1:].clone()
        targets[targets == self.pad] = IGNORED
        return ids[:, :-1].contiguous(), targets
