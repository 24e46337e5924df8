"""`python -m training.base.travel`: a corpus to a machine that nothing but small parcels reaches, and a model back.

    pack DOCUMENTS OUT     parcels of at most --mebibytes each: text packs to about a sixth, tokens to two thirds
    rows PARCELS OUT       rows of each parcel that has none, in a folder of its own, so that training can begin with the
                           first; parcels may come in several calls
    split FOLDER OUT       a model folder in parts of at most --mebibytes
    join PARTS OUT         the folder again
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import lzma
import multiprocessing
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from . import documents, prepare
from .documents import Document
from .paths import CORPUS_FIRST, alone_in, default_work, digest, needed
from .prepare import Taste

HELD_OUT = "held-out.jsonl.xz"
PARTS = "parts.json"
PRESET = 6
# Compressed together at most: enough for the dictionary.
BLOCK_BYTES = 8_000_000
# A block is so many limits long where parcels are small: text packs better than that, so that one fits.
BLOCK_LIMITS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["pack", "rows", "split", "join"])
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--mebibytes", type=float, default=14)
    parser.add_argument("--tokenizer", type=Path, default=default_work().tokenizer, help="rows: folder of tokenizer.json")
    parser.add_argument("--row-tokens", type=int, default=Taste.row_tokens)
    parser.add_argument("--jobs", type=int, default=1)
    prepare.add_budget(parser)
    arguments = parser.parse_args()
    limit = int(arguments.mebibytes * (1 << 20))
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.verb == "pack":
        made = pack(arguments.source, arguments.out, limit, prepare.budget_of(arguments), arguments.jobs)
        print(f"{len(made)} parcels, {sum(path.stat().st_size for path in made) / 1e6:.1f} MB, and {HELD_OUT}")
    elif arguments.verb == "rows":
        with alone_in(arguments.out):
            rows(arguments.source, arguments.out, arguments.tokenizer, Taste(arguments.row_tokens), arguments.jobs)
    elif arguments.verb == "split":
        print(f"{len(split(arguments.source, arguments.out, limit))} parts, and {PARTS}")
    else:
        join(arguments.source, arguments.out)


def pack(folder: Path, out: Path, limit: int, budget: dict[str, int], jobs: int = 1) -> list[Path]:
    """Training documents in their order, as much of each language as its budget says, each parcel with its languages'
    sizes beside it; held-out ones by themselves."""
    (out / HELD_OUT).write_bytes(lzma.compress(gzip.decompress((folder / "held-out.jsonl.gz").read_bytes()), preset=PRESET))
    for old in [*out.glob("train-*.jsonl.xz"), *out.glob("train-*.json")]:
        old.unlink()
    keep = prepare.shares(json.loads(needed(folder / "manifest.json", CORPUS_FIRST).read_text())["languages"], budget)
    chosen = prepare.chosen(documents.read(folder, "train"), keep, 0)
    made: list[Path] = []
    sizes: Counter[str] = Counter()
    room = 0
    with multiprocessing.Pool(jobs) as pool:
        for packed, size in pool.imap(packed_block, blocks(chosen, min(BLOCK_BYTES, BLOCK_LIMITS * limit))):
            if room < len(packed):
                made.append(out / f"train-{len(made):03}.jsonl.xz")
                made[-1].write_bytes(b"")
                sizes.clear()
                room = limit
            with made[-1].open("ab") as parcel:
                parcel.write(packed)
            sizes.update(size)
            told = {"packed_bytes": made[-1].stat().st_size, "languages": sizes}
            manifest_of(made[-1]).write_text(json.dumps(told))
            room -= len(packed)
    return made


def manifest_of(parcel: Path) -> Path:
    """Where a parcel's own bytes are told, and its text's by language."""
    return parcel.with_name(parcel.name.partition(".")[0] + ".json")


def blocks(read: Iterator[Document], bytes_max: int) -> Iterator[list[Document]]:
    """Whole documents, about so many bytes together."""
    block, size = [], 0
    for document in read:
        block.append(document)
        size += len(document.text)
        if size >= bytes_max:
            yield block
            block, size = [], 0
    if block:
        yield block


def packed_block(block: list[Document]) -> tuple[bytes, Counter[str]]:
    """Lines of JSON, compressed, and the bytes of text of each language."""
    sizes: Counter[str] = Counter()
    for document in block:
        sizes[document.language] += len(document.text.encode())
    lines = "".join(json.dumps(asdict(document), ensure_ascii=False) + "\n" for document in block)
    return lzma.compress(lines.encode(), preset=PRESET), sizes


def rows(parcels: Path, out: Path, tokenizer: Path, taste: Taste, jobs: int) -> None:
    """One folder of rows for each parcel that has none, in their order; the first one has the validation rows."""
    found = sorted(parcels.glob("train-*.jsonl.xz"))
    if not found:
        raise SystemExit(f"{parcels} has no parcels; `pack` makes them, as train-000.jsonl.xz")
    for number, parcel in enumerate(found):
        made = out / parcel.name.partition(".")[0]
        if (made / "index.json").exists():
            continue
        if not is_whole(parcel):
            print(f"{parcel} is not whole yet")
            continue
        try:
            with tempfile.TemporaryDirectory() as place:
                unpack(parcel, Path(place))
                prepare.prepare(Path(place), tokenizer, made, taste, {}, jobs, with_valid=number == 0)
        except (EOFError, OSError, ValueError, lzma.LZMAError) as problem:
            # The next ones may be whole, and a training waits for them.
            (made / "index.json").unlink(missing_ok=True)
            print(f"{parcel} gave no rows: {problem}")


def is_whole(parcel: Path) -> bool:
    """Whether all of a parcel and what belongs to it has come over."""
    beside = manifest_of(parcel)
    if not beside.exists() or not parcel.with_name(HELD_OUT).exists():
        return False
    return parcel.stat().st_size == json.loads(beside.read_text())["packed_bytes"]


def unpack(parcel: Path, out: Path) -> None:
    """A folder of documents of one parcel and the held-out ones: they are read as they are packed."""
    for path in (parcel, parcel.with_name(HELD_OUT)):
        (out / path.name).symlink_to(path.resolve())
    sizes = json.loads(manifest_of(parcel).read_text())["languages"]
    languages = {name: {"train_bytes": size} for name, size in sizes.items()}
    (out / "manifest.json").write_text(json.dumps({"languages": languages}))


def split(folder: Path, out: Path, limit: int) -> list[Path]:
    """The folder as one tar, in numbered parts, and a list of their digests."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for path in sorted(folder.iterdir()):
            if path.is_file():
                archive.add(path, path.name)
    content = whole.getvalue()
    for old in out.glob("part-*.bin"):
        old.unlink()
    made = []
    for number, start in enumerate(range(0, len(content), limit)):
        made.append(out / f"part-{number:05}.bin")
        made[-1].write_bytes(content[start : start + limit])
    (out / PARTS).write_text(json.dumps({path.name: digest(path) for path in made}))
    return made


def join(parts: Path, out: Path) -> None:
    """The folder that the parts were."""
    listed = json.loads(needed(parts / PARTS, "`split` writes it beside the parts").read_text())
    for name, wanted in listed.items():
        if digest(needed(parts / name, f"{PARTS} lists it; bring it over")) != wanted:
            raise SystemExit(f"{parts / name} is not what `split` wrote; bring it over again")
    content = b"".join((parts / name).read_bytes() for name in listed)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(out, filter="data")


if __name__ == "__main__":
    main()
