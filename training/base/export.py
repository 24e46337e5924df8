"""`python -m training.base.export`: a checkpoint in, a folder that Atelier loads with --base out."""

from __future__ import annotations

import argparse
import tempfile
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
    out.parent.mkdir(parents=True, exist_ok=True)
    content = torch.load(needed(run / CHECKPOINT, RUN_FIRST), map_location="cpu", weights_only=True)
    model = Model(Shape(**content["shape"]))
    model.load_state_dict(content["model"])
    vocabulary = Vocabulary(run)
    if vocabulary.size != model.shape.vocab_size:
        raise SystemExit(f"the tokenizer in {run} has {vocabulary.size} tokens and the model {model.shape.vocab_size}")
    with tempfile.TemporaryDirectory(dir=out.parent) as place:
        size = save(model, Path(place), run, vocabulary.special(END))
        if size > FOLDER_BYTES_MAX:
            raise SystemExit(f"the model has {size:,} bytes; the repository takes {FOLDER_BYTES_MAX:,} for a base at most")
        out.mkdir(exist_ok=True)
        for path in Path(place).iterdir():
            path.replace(out / path.name)
    return size


if __name__ == "__main__":
    main()
