"""`python -m training.base.corpus`: package names in, a corpus of documents out.

    fetch   each package of the lists, once: archive → files worth learning from → one record and one file each
    merge   every package's files, without duplicates and without what is held out → documents/, manifest.json
    all     both

A package that is there is not fetched again; a killed run goes on where it was.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import random
import shutil
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from . import names
from .duplicates import Seen
from .fetch import ClientFailed, Fetched, Unavailable, cargo, debian, npm, pip
from .languages import LANGUAGES, language_of
from .licences import is_allowed, normalise
from .names import Wanted
from .paths import Work, default_work, write_atomically
from .progress import Progress
from .quality import refusal
from .scrub import scrub

CLIENTS = {"pip": pip.fetch, "npm": npm.fetch, "debian": debian.fetch}
# Bytes taken of one package, so that none drowns the others; its files are then taken in random order.
PACKAGE_BYTES_MAX = 12_000_000
# Bytes of text in one file of documents/.
DOCUMENTS_BYTES = 32_000_000
COMPRESSION = 5
# Packages whose failure is printed; their records have the others'.
FAILURES_SHOWN = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["fetch", "merge", "all"])
    parser.add_argument("--languages", nargs="+", default=list(LANGUAGES), choices=LANGUAGES)
    parser.add_argument("--lists", type=Path, default=names.HERE / "packages", help="folder of the lists")
    parser.add_argument("--work", type=Path, default=default_work().root)
    parser.add_argument("--first", type=int, default=0, help="only so many packages of each list")
    arguments = parser.parse_args()
    work = Work(arguments.work.resolve())
    wanted = select(arguments.languages, arguments.lists, arguments.first)
    if arguments.verb in ("fetch", "all"):
        fetch(work, wanted)
    if arguments.verb in ("merge", "all"):
        merge(work, wanted)


def select(languages: list[str], lists: Path, first: int = 0) -> list[Wanted]:
    """Held-out packages of these languages first: what nearly equals one of their files is then a duplicate."""
    apart = [wanted for wanted in names.held_out(lists) if wanted.language in languages]
    learned = names.training(languages, lists)
    if first:
        counts: Counter[str] = Counter()
        kept = []
        for wanted in learned:
            counts[wanted.language] += 1
            if counts[wanted.language] <= first:
                kept.append(wanted)
        learned = kept
    return apart + learned


def fetch(work: Work, wanted: list[Wanted]) -> None:
    """Brings every package that has no record yet, or one of a client that failed. What cannot be had gets a record
    that says why."""
    missing = [one for one in wanted if (read_record(work, one) or {"again": True}).get("again")]
    progress = Progress("fetch", len(missing))
    crates = [one for one in missing if one.ecosystem == "cargo"]
    for one in (one for one in missing if one.ecosystem != "cargo"):
        try:
            store(work, one, CLIENTS[one.ecosystem](one.name, work.downloads))
        except Unavailable as problem:
            store(work, one, problem)
        except (tarfile.TarError, zipfile.BadZipFile, EOFError) as problem:
            store(work, one, ClientFailed(f"a damaged archive: {problem}"))
        progress.advance(note=one.name)
    for start in range(0, len(crates), cargo.BATCH):
        batch = crates[start : start + cargo.BATCH]
        fetched = cargo.fetch_all([one.name for one in batch], work.downloads)
        for one in batch:
            store(work, one, fetched[one.name], keep_leftovers=True)
            progress.advance(note=one.name)
        shutil.rmtree(work.downloads, ignore_errors=True)
    shutil.rmtree(work.downloads, ignore_errors=True)
    failed = [record for one in missing if (record := read_record(work, one) or {}).get("again")]
    if failed:
        print(f"{len(failed)} of {len(wanted)} packages could not be fetched; run again to ask for them again:")
        for record in failed[:FAILURES_SHOWN]:
            print(f"  {record['name']}: {record['refused']}")
    if missing and len(failed) == len(missing) == len(wanted):
        raise SystemExit("no package could be fetched: is the network there?")


def record_path(work: Work, wanted: Wanted) -> Path:
    return work.packages / f"{wanted.key}.json"


def files_path(work: Work, wanted: Wanted) -> Path:
    return work.packages / f"{wanted.key}.jsonl.gz"


def shield_path(work: Work, wanted: Wanted) -> Path:
    return work.packages / f"{wanted.key}.shield.gz"


def store(work: Work, wanted: Wanted, found: Fetched | Unavailable, keep_leftovers: bool = False) -> None:
    """Writes a package's files, then its record; the record's being there says that both are whole."""
    record = {"name": wanted.name, "ecosystem": wanted.ecosystem, "language": wanted.language}
    if isinstance(found, Unavailable):
        record["refused"] = str(found)
        if isinstance(found, ClientFailed):
            record["again"] = True
    else:
        record |= {"version": found.version, "licence": normalise(found.licence)}
        if wanted.is_held_out:
            found.files = iter(shield(work, wanted, list(found.files)))
        if not is_allowed(found.licence):
            record["refused"] = f"licence {found.licence!r} is not on the allow-list"
        else:
            lines, counts = taken(wanted, found)
            content = gzip.compress("".join(lines).encode(), COMPRESSION, mtime=0)
            write_atomically(files_path(work, wanted), content)
            record |= counts
        if not keep_leftovers:
            for leftover in found.leftovers:
                shutil.rmtree(leftover, ignore_errors=True)
    write_atomically(record_path(work, wanted), (json.dumps(record, indent=1) + "\n").encode())


def shield(work: Work, wanted: Wanted, files: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Keeps all texts of a held-out package, whatever its licence and the filters say: a copy of any of them in another
    package is not learned from."""
    lines = "".join(json.dumps(text, ensure_ascii=False) + "\n" for _, text in sorted(files))
    write_atomically(shield_path(work, wanted), gzip.compress(lines.encode(), COMPRESSION, mtime=0))
    return files


def taken(wanted: Wanted, found: Fetched) -> tuple[list[str], dict]:
    """The package's files as lines of JSON, and the counts for its record."""
    lines, dropped, secrets = [], Counter(), Counter()
    size = 0
    digest = hashlib.sha256()
    for path, text in sorted(found.files):
        language = language_of(path)
        reason = refusal(path, text, language or "")
        if language is None or reason:
            dropped[reason or "language"] += 1
            continue
        text, counts = scrub(text)
        secrets += counts
        lines.append(json.dumps({"language": language, "path": path, "text": text}, ensure_ascii=False) + "\n")
        digest.update(path.encode() + b"\0" + text.encode() + b"\0")
        size += len(text.encode())
    if size > PACKAGE_BYTES_MAX:
        random.Random(wanted.key).shuffle(lines)
        while size > PACKAGE_BYTES_MAX:
            dropped["over the package's share"] += 1
            size -= len(lines.pop().encode())
        lines.sort()
    counts = {"files": len(lines), "bytes": size, "digest": digest.hexdigest()}
    return lines, counts | {"dropped": dict(dropped), "secrets": dict(secrets)}


def package_files(work: Work, wanted: Wanted) -> Iterator[dict]:
    """What `store` wrote."""
    path = files_path(work, wanted)
    if path.exists():
        with gzip.open(path, "rt", encoding="utf-8", newline="\n") as lines:
            yield from map(json.loads, lines)


def merge(work: Work, wanted: list[Wanted]) -> dict:
    """Writes documents/ and the manifest. Packages keep their order within themselves and are shuffled as wholes."""
    apart = [one for one in wanted if one.is_held_out]
    learned = [one for one in wanted if not one.is_held_out]
    random.Random(0).shuffle(learned)
    fresh = work.documents.with_name("documents.part")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    seen = Seen()
    progress = Progress("merge", len(wanted))
    entries, refused, missing = [], [], 0
    # Held out first: whatever nearly equals one of those files, a vendored copy say, is then not learned from.
    with Writer(fresh, "held-out", None) as held_out, Writer(fresh, "train", DOCUMENTS_BYTES) as train:
        for one in apart + learned:
            record = read_record(work, one)
            if record is None:
                missing += 1
            elif "refused" in record:
                refused.append(record)
            else:
                writer = held_out if one.is_held_out else train
                entries.append(entry(record, one, add_package(work, one, seen, writer)))
            if one.is_held_out:
                add_shield(work, one, seen)
            progress.advance(note=one.name)
    manifest = summary(entries, refused)
    write_atomically(fresh / "manifest.json", lines_of(manifest).encode())
    shutil.rmtree(work.documents, ignore_errors=True)
    fresh.rename(work.documents)
    if missing:
        print(f"{missing} packages of the lists are not fetched yet")
    print(json.dumps({key: manifest[key] for key in ("languages", "duplicates", "secrets")}, indent=1))
    return manifest


def read_record(work: Work, wanted: Wanted) -> dict | None:
    path = record_path(work, wanted)
    return json.loads(path.read_text()) if path.exists() else None


def add_package(work: Work, wanted: Wanted, seen: Seen, writer: Writer) -> dict:
    """Adds a package's files that are new; gives what was kept, by language."""
    kept: dict[str, list[int]] = {}
    duplicates: Counter[str] = Counter()
    for file in package_files(work, wanted):
        if kind := seen.add(file["text"]):
            duplicates[kind] += 1
            continue
        size = len(file["text"].encode())
        counts = kept.setdefault(file["language"], [0, 0])
        counts[0] += 1
        counts[1] += size
        writer.write({"package": wanted.name, **file}, size)
    return {"kept": kept, "duplicates": dict(duplicates)}


def add_shield(work: Work, wanted: Wanted, seen: Seen) -> None:
    """Makes copies of a held-out package's texts duplicates."""
    path = shield_path(work, wanted)
    if not path.exists():
        print(f"{wanted.name} is held out and could not be fetched: copies of its files elsewhere would be learned from")
        return
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as lines:
        for line in lines:
            seen.add(json.loads(line))


def entry(record: dict, wanted: Wanted, kept: dict) -> dict:
    """One package's line of the manifest."""
    fields = {key: record[key] for key in ("name", "ecosystem", "version", "licence", "digest", "secrets", "dropped")}
    return fields | {"held_out": wanted.is_held_out, **kept}


def summary(entries: list[dict], refused: list[dict]) -> dict:
    """The manifest: totals first."""
    languages: dict[str, dict[str, int]] = {}
    duplicates: Counter[str] = Counter()
    secrets: Counter[str] = Counter()
    for one in entries:
        part = "held_out" if one["held_out"] else "train"
        duplicates.update(one["duplicates"])
        secrets.update(one["secrets"])
        for language, (files, size) in one["kept"].items():
            totals = languages.setdefault(language, dict.fromkeys(
                ("train_files", "train_bytes", "held_out_files", "held_out_bytes"), 0))  # fmt: skip
            totals[f"{part}_files"] += files
            totals[f"{part}_bytes"] += size
    kept = sorted(entries, key=lambda one: (one["held_out"], one["ecosystem"], one["name"]))
    return {
        "languages": languages, "duplicates": dict(duplicates), "secrets": dict(secrets),
        "packages": kept, "refused": refused,
    }  # fmt: skip


def lines_of(manifest: dict) -> str:
    """The manifest as JSON, a line for each package: it is read in differences."""
    parts = []
    for key, value in manifest.items():
        if isinstance(value, list):
            value = "[\n" + ",\n".join("  " + json.dumps(one, ensure_ascii=False) for one in value) + "\n ]"
        else:
            value = json.dumps(value, ensure_ascii=False)
        parts.append(f" {json.dumps(key)}: {value}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


class Writer:
    """Lines of JSON into numbered compressed files of about `bytes_max` of text each, or one file for None."""

    def __init__(self, folder: Path, stem: str, bytes_max: int | None) -> None:
        self.folder, self.stem, self.bytes_max = folder, stem, bytes_max
        self.count = 0
        self.room = 0
        self.file = None

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        if self.file:
            self.file.close()

    def write(self, document: dict, size: int) -> None:
        """Adds one document."""
        if self.file is None or (self.bytes_max and self.room < size):
            if self.file:
                self.file.close()
            name = f"{self.stem}-{self.count:03}.jsonl.gz" if self.bytes_max else f"{self.stem}.jsonl.gz"
            self.file = gzip.open(self.folder / name, "wt", encoding="utf-8", newline="\n", compresslevel=COMPRESSION)
            self.count += 1
            self.room = self.bytes_max or 0
        self.file.write(json.dumps(document, ensure_ascii=False) + "\n")
        self.room -= size


if __name__ == "__main__":
    main()
