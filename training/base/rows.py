"""Rows of tokens for training, by step: which rows a step takes follows from the seed alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from .model import IGNORED


class Rows:
    """The rows that prepare.py wrote, mapped into memory."""

    def __init__(self, folder: Path, pad: int) -> None:
        self.folder, self.pad = folder, pad
        self.index = json.loads((folder / "index.json").read_text())
        self.width = self.index["row_tokens"] + 1
        self.shards = [self.mapped(name) for name in self.index["shards"]]
        self.starts = np.cumsum([0, *(len(shard) for shard in self.shards)])
        self.count = int(self.starts[-1])
        self.orders: dict[int, np.ndarray] = {}

    def mapped(self, name: str) -> np.ndarray:
        return np.memmap(self.folder / name, np.uint16, "r").reshape(-1, self.width)

    def step(self, step: int, rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets of a step, (rows, row_tokens). Each epoch is a new order of all rows."""
        places = range(step * rows, (step + 1) * rows)
        chosen = [self.order(place // self.count, seed)[place % self.count] for place in places]
        return self.tensors(np.stack([self.row(int(index)) for index in chosen]))

    def order(self, epoch: int, seed: int) -> np.ndarray:
        if epoch not in self.orders:
            self.orders = {epoch: np.random.default_rng([seed, epoch]).permutation(self.count), **self.last(epoch)}
        return self.orders[epoch]

    def last(self, epoch: int) -> dict[int, np.ndarray]:
        return {key: order for key, order in self.orders.items() if key == epoch - 1}

    def row(self, index: int) -> np.ndarray:
        shard = int(np.searchsorted(self.starts, index, "right")) - 1
        return self.shards[shard][index - self.starts[shard]]

    def valid(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """All rows of a validation set."""
        return self.tensors(np.array(self.mapped(f"{name}.u16")))

    def tensors(self, block: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        ids = torch.from_numpy(block.astype(np.int64))
        targets = ids[:, 1:].clone()
        targets[targets == self.pad] = IGNORED
        return ids[:, :-1].contiguous(), targets
