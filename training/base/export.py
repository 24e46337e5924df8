"""`python -m training.base.export`: a checkpoint in, a folder that Atelier loads with --base out."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from .folder import save
from .model import Model
from .paths import RUN_FIRST, needed
from .sizes import Shape
from .special import END
from .tokenizer import Vocabulary
from .train import CHECKPOINT

# What the repository carries at most for a base.
FOLDER_BYTES_MAX = 64_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder that train wrote")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    size = export(arguments.run, arguments.out)
    print(f"{arguments.out}: {size:,} bytes")


def export(run: Path, out: Path) -> int:
    """Writes the folder in bf16; gives its bytes."""
    content = torch.load(needed(run / CHECKPOINT, RUN_FIRST), map_location="cpu", weights_only=True)
    model = Model(Shape(**content["shape"]))
    model.load_state_dict(content["model"])
    size = save(model, out, run, Vocabulary(run).special(END))
    if size > FOLDER_BYTES_MAX:
        raise SystemExit(f"{out} has {size:,} bytes; the repository takes {FOLDER_BYTES_MAX:,} for a base at most")
    return size


if __name__ == "__main__":
    main()
