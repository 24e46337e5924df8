"""Where the recipe keeps what it makes: one work folder under target/, which git ignores."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
SHIPPED_BASE = ROOT / "models" / "atelier-base"


@dataclass(frozen=True)
class Work:
    """The folders of one run of the recipe."""

    root: Path

    @property
    def downloads(self) -> Path:
        """Archives as the package clients gave them; deleted once read."""
        return self.root / "downloads"

    @property
    def packages(self) -> Path:
        """One `NAME.json` (what was taken) and one `NAME.jsonl.gz` (its files) for each package."""
        return self.root / "packages"

    @property
    def documents(self) -> Path:
        """The corpus: `train-NNN.jsonl.gz` and `held-out.jsonl.gz`, and its `manifest.json`."""
        return self.root / "documents"

    @property
    def tokenizer(self) -> Path:
        """The tokenizer that this run made."""
        return self.root / "tokenizer"


def default_work() -> Work:
    """`target/base-model` of this checkout, or what BASE_MODEL_WORK names."""
    return Work(Path(os.environ.get("BASE_MODEL_WORK", ROOT / "target" / "base-model")))


def needed(path: Path, made_by: str) -> Path:
    """The path, or an end that says which step makes it."""
    if not path.exists():
        raise SystemExit(f"{path} is not there; {made_by}")
    return path


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Nobody else writes the folder meanwhile: a second process ends, and says why."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(f"another process writes {folder}; wait for it, or name another folder") from None
        yield


CORPUS_FIRST = "run `python -m training.base.corpus all` first, or name another folder"
TOKENIZER_FIRST = "run `python -m training.base.tokenizer` first, or name another folder with --tokenizer"
ROWS_FIRST = "run `python -m training.base.prepare` first, or name another folder with --rows"
RUN_FIRST = "name the folder that `python -m training.base.train` wrote with --out"
MODEL_FIRST = "name a folder that `python -m training.base.export` wrote, or another in Hugging Face layout"


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces `path` in one step: a killed run leaves the old file or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
