"""`python -m training.base.travel`: a corpus to a machine that nothing but small parcels reaches, and a model back.

    pack DOCUMENTS OUT     parcels of at most --mebibytes each: text packs to about a sixth, tokens to two thirds
    unpack PARCELS OUT     documents/ again, from parcels that may come in several calls
    split FOLDER OUT       a model folder in parts of at most --mebibytes
    join PARTS OUT         the folder again
"""

from __future__ import annotations

import argparse
import gzip
import io
import lzma
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

PRESET = 6
# Compressed together: enough for the dictionary, little enough to close a parcel in time.
BLOCK_BYTES = 8_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["pack", "unpack", "split", "join"])
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--mebibytes", type=float, default=14)
    parser.add_argument("--parcels", type=int, default=1000, help="no more than so many")
    arguments = parser.parse_args()
    limit = int(arguments.mebibytes * (1 << 20))
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.verb == "pack":
        pack(arguments.source, arguments.out, limit, arguments.parcels)
    elif arguments.verb == "unpack":
        unpack(arguments.source, arguments.out)
    elif arguments.verb == "split":
        split(arguments.source, arguments.out, limit)
    else:
        join(arguments.source, arguments.out)


def pack(documents: Path, out: Path, limit: int, parcels: int) -> list[Path]:
    """Training documents in their order, held-out ones and the manifest in the first parcel."""
    shutil.copy(documents / "manifest.json", out / "manifest.json")
    held_out = lzma.compress(gzip.decompress((documents / "held-out.jsonl.gz").read_bytes()), preset=PRESET)
    (out / "held-out.jsonl.xz").write_bytes(held_out)
    made: list[Path] = []
    room = 0
    for block in blocks(documents):
        packed = lzma.compress(block, preset=PRESET)
        if room < len(packed):
            if len(made) == parcels:
                break
            made.append(out / f"train-{len(made):03}.jsonl.xz")
            made[-1].write_bytes(b"")
            # The first call brings the held-out files along.
            room = limit - (len(held_out) if len(made) == 1 else 0)
        with made[-1].open("ab") as parcel:
            parcel.write(packed)
        room -= len(packed)
    return made


def blocks(documents: Path) -> Iterator[bytes]:
    """Whole lines of about BLOCK_BYTES."""
    block, size = [], 0
    for path in sorted(documents.glob("train-*.jsonl.gz")):
        with gzip.open(path, "rb") as lines:
            for line in lines:
                block.append(line)
                size += len(line)
                if size >= BLOCK_BYTES:
                    yield b"".join(block)
                    block, size = [], 0
    if block:
        yield b"".join(block)


def unpack(parcels: Path, out: Path) -> None:
    """What has come so far."""
    for path in sorted(parcels.glob("*.jsonl.xz")):
        target = out / path.name.replace(".xz", ".gz")
        if not target.exists():
            with lzma.open(path, "rb") as source, gzip.open(target, "wb", compresslevel=1) as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
    if (parcels / "manifest.json").exists():
        shutil.copy(parcels / "manifest.json", out / "manifest.json")


def split(folder: Path, out: Path, limit: int) -> list[Path]:
    """The folder as one tar, in numbered parts."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for path in sorted(folder.iterdir()):
            if path.is_file():
                archive.add(path, path.name)
    content = whole.getvalue()
    made = []
    for number, start in enumerate(range(0, len(content), limit)):
        made.append(out / f"part-{number:02}.bin")
        made[-1].write_bytes(content[start : start + limit])
    return made


def join(parts: Path, out: Path) -> None:
    """The folder that the parts were."""
    content = b"".join(path.read_bytes() for path in sorted(parts.glob("part-*.bin")))
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(out, filter="data")


if __name__ == "__main__":
    main()
