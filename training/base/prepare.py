"""`python -m training.base.prepare`: documents in, rows of tokens out.

A row is `row_tokens` + 1 ids in 16 bits: each but the first is a target of those before it. Files lie end to end, each
followed by the end mark, and are cut every `row_tokens`. Some runs of files carry their repository's name and their
paths. Some rows are rearranged for fill-in-the-middle, in both orders, cut at syntax or anywhere (fim.py); the end
mark follows each middle. Everything follows from the seed.
"""

from __future__ import annotations

import argparse
import array
import json
import multiprocessing
import random
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from . import documents, fim, scopes
from .documents import Document
from .paths import CORPUS_FIRST, Work, alone_in, default_work, digest, needed, write_atomically
from .progress import Progress
from .special import END, FILE_SEP, PAD, REPO_NAME
from .tokenizer import Vocabulary

# Tokens of the shortest piece of a file that is rearranged; a shorter one has no context.
PIECE_TOKENS_MIN = 24
# Rows in one shard: 32 MB at 1,024 tokens.
SHARD_ROWS = 16_384
# Runs of documents handed to processes ahead, for each of them.
IN_FLIGHT = 3
# Rows of each validation set: enough for a curve that does not jump.
VALID_ROWS = 192


@dataclass(frozen=True)
class Taste:
    """How rows are made."""

    row_tokens: int = 1024
    # Share of rows rearranged for fill-in-the-middle.
    fim_share: float = 0.6
    # Of those, share in suffix-prefix-middle order. Both orders must be learned: Atelier asks in the other.
    suffix_first_share: float = 0.4
    # Share of packages whose files carry repository context.
    repository_share: float = 0.3
    # Share of rearranged rows without an end mark in front: a prompt has none.
    bare_share: float = 0.5
    seed: int = 0


@dataclass(frozen=True)
class Piece:
    """A run of one document's tokens."""

    document: int
    head: tuple[int, ...]  # in front of the document's first token, and never rearranged
    start: int
    end: int
    tail: tuple[int, ...]  # after its last


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=default_work().root)
    parser.add_argument("--tokenizer", type=Path, help="folder of a tokenizer.json; this run's own when absent")
    parser.add_argument("--out", type=Path, help="WORK/rows when absent")
    parser.add_argument("--row-tokens", type=int, default=Taste.row_tokens)
    parser.add_argument("--fim-share", type=float, default=Taste.fim_share)
    parser.add_argument("--suffix-first-share", type=float, default=Taste.suffix_first_share)
    parser.add_argument("--repository-share", type=float, default=Taste.repository_share)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    add_budget(parser)
    arguments = parser.parse_args()
    work = Work(arguments.work)
    taste = Taste(
        arguments.row_tokens, arguments.fim_share, arguments.suffix_first_share, arguments.repository_share,
        seed=arguments.seed,
    )  # fmt: skip
    out = arguments.out or work.root / "rows"
    with alone_in(out):
        prepare(work.documents, arguments.tokenizer or work.tokenizer, out, taste, budget_of(arguments), arguments.jobs)


def add_budget(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--budget", nargs="*", default=[], metavar="LANGUAGE=BYTES", help="most bytes of a language")


def budget_of(arguments: argparse.Namespace) -> dict[str, int]:
    pairs = [one.partition("=") for one in arguments.budget]
    if wrong := [name for name, _, size in pairs if not size.isdigit()]:
        raise SystemExit(f"--budget takes LANGUAGE=BYTES, as python=130000000, and not {wrong[0]!r}")
    return {name: int(size) for name, _, size in pairs}


def shares(languages: dict[str, dict], budget: dict[str, int]) -> dict[str, float]:
    """What part of its documents each language of a manifest keeps; all where the budget does not name it."""
    return {name: min(1.0, size / max(languages.get(name, {}).get("train_bytes", 1), 1)) for name, size in budget.items()}


def prepare(
    folder: Path, tokenizer: Path, out: Path, taste: Taste, budget: dict[str, int], jobs: int = 1, with_valid: bool = True
) -> None:
    """Writes train-NNN.u16, valid-plain.u16, valid-fim.u16 and, last, index.json."""
    out.mkdir(parents=True, exist_ok=True)
    languages = json.loads(needed(folder / "manifest.json", CORPUS_FIRST).read_text())["languages"]
    if unknown := set(budget) - set(languages):
        raise SystemExit(f"--budget names {', '.join(sorted(unknown))}; the corpus has {', '.join(sorted(languages))}")
    # The index first: it says that the rows are whole.
    for old in (out / "index.json", *out.glob("*.u16")):
        old.unlink(missing_ok=True)
    keep = shares(languages, budget)
    total = sum(counts["train_bytes"] * keep.get(name, 1.0) for name, counts in languages.items())
    progress = Progress("prepare", int(total))
    counts: Counter[str] = Counter()
    with Shards(out, "train", taste.row_tokens + 1) as shards:
        for rows, made in made_rows(folder, tokenizer, taste, keep, jobs):
            shards.extend(rows)
            counts.update(made)
            progress.advance(made["bytes"])
    valid = valid_rows(folder, tokenizer, taste, out) if with_valid else {}
    index = {
        "row_tokens": taste.row_tokens, "rows": shards.rows, "shards": shards.names, "tokenizer": digest(tokenizer / "tokenizer.json"),
        "taste": asdict(taste), "budget": budget, "counts": dict(counts), "valid": valid,
    }  # fmt: skip
    write_atomically(out / "index.json", (json.dumps(index, indent=1) + "\n").encode())
    print(json.dumps({key: index[key] for key in ("rows", "row_tokens", "counts", "valid")}, indent=1))


def made_rows(folder: Path, tokenizer: Path, taste: Taste, keep: dict[str, float], jobs: int) -> Iterator:
    """Rows and counts of one package after another, from `jobs` processes."""
    # Here first: workers that cannot start would say so one after another.
    Vocabulary(tokenizer)
    groups = enumerate(documents.by_package(chosen(documents.read(folder, "train"), keep, taste.seed)))
    if jobs == 1:
        maker = Maker(Vocabulary(tokenizer), taste)
        yield from (maker.rows(group, index) for index, group in groups)
        return
    # An executor, since a pool waits for ever for a worker that was killed; with few in flight, since all at once would
    # hold the corpus in memory.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, start, (tokenizer, taste)) as workers:
        flying = deque(workers.submit(work_on, group) for group in islice(groups, IN_FLIGHT * jobs))
        while flying:
            yield flying.popleft().result()
            flying.extend(workers.submit(work_on, group) for group in islice(groups, 1))


def chosen(read: Iterator[Document], keep: dict[str, float], seed: int) -> Iterator[Document]:
    """Each document with its language's probability."""
    chance = random.Random(f"budget {seed}")
    for document in read:
        if chance.random() < keep.get(document.language, 1.0):
            yield document


def start(tokenizer: Path, taste: Taste) -> None:
    global MAKER
    MAKER = Maker(Vocabulary(tokenizer), taste)


def work_on(numbered: tuple[int, list[Document]]) -> tuple[list[array.array], dict]:
    return MAKER.rows(numbered[1], numbered[0])


def valid_rows(folder: Path, tokenizer: Path, taste: Taste, out: Path) -> dict[str, int]:
    """Rows of held-out documents: none rearranged, and all of them in the order that Atelier asks in."""
    sizes = {}
    for name, fim_share in (("valid-plain", 0.0), ("valid-fim", 1.0)):
        changed = Taste(taste.row_tokens, fim_share, 0.0, 0.0, 1.0, taste.seed + 1)
        maker = Maker(Vocabulary(tokenizer), changed)
        chance = random.Random(name)
        # A few files of each package rather than all of the first ones.
        few = (
            chance.sample(group, min(len(group), 4))
            for group in documents.by_package(documents.read(folder, "held-out"))
        )
        rows = [row for index, group in enumerate(few) for row in maker.rows(group, index)[0]]
        chance.shuffle(rows)
        with Shards(out, name, taste.row_tokens + 1) as shards:
            shards.extend(islice(rows, VALID_ROWS))
        sizes[name] = shards.rows
    return sizes


class Shards:
    """Rows into files of at most SHARD_ROWS."""

    def __init__(self, folder: Path, stem: str, width: int) -> None:
        self.folder, self.stem, self.width = folder, stem, width
        self.rows = 0
        self.names: list[str] = []
        self.file = None

    def __enter__(self) -> Shards:
        return self

    def __exit__(self, *_: object) -> None:
        if self.file:
            self.file.close()

    def extend(self, rows) -> None:
        """Appends rows of the right width."""
        for row in rows:
            if len(row) != self.width:
                raise ValueError(f"a row of {len(row)} ids, not {self.width}")
            if self.rows % SHARD_ROWS == 0:
                if self.file:
                    self.file.close()
                self.names.append(f"{self.stem}-{len(self.names):03}.u16" if self.stem == "train" else f"{self.stem}.u16")
                self.file = (self.folder / self.names[-1]).open("ab")
            self.file.write(row.tobytes())
            self.rows += 1


class Maker:
    """Cuts the rows of one package at a time."""

    def __init__(self, vocabulary: Vocabulary, taste: Taste) -> None:
        if vocabulary.size > 1 << 16:
            raise SystemExit(f"a vocabulary of {vocabulary.size} does not fit in 16 bits")
        self.vocabulary, self.taste = vocabulary, taste
        self.writer = fim.Writer(vocabulary.encode, vocabulary.special)
        self.end, self.pad = vocabulary.special(END), vocabulary.special(PAD)

    def rows(self, group: list[Document], index: int) -> tuple[list[array.array], dict]:
        """Rows of a package, and what was done; the last row is filled up with padding, which is no target."""
        chance = random.Random(f"{self.taste.seed} {index} {group[0].package}")
        encoded = [self.vocabulary.tokenizer.encode(one.text, add_special_tokens=False) for one in group]
        places: dict[int, list[scopes.Scope]] = {}
        has_context = chance.random() < self.taste.repository_share
        counts: Counter[str] = Counter(bytes=sum(len(one.text.encode()) for one in group))
        made = []
        for first, window in self.windows(group, [one.ids for one in encoded], has_context, chance):
            is_fim = chance.random() < self.taste.fim_share
            row = None
            if is_fim:
                row = self.rearranged(window, group, encoded, places, chance, counts)
            if row is None:
                row = [first]
                for piece in window:
                    row += self.plain(piece, encoded)
            row = row[: self.taste.row_tokens + 1]
            counts["tokens"] += len(row) - 1
            counts["rows"] += 1
            row += [self.pad] * (self.taste.row_tokens + 1 - len(row))
            made.append(array.array("H", row))
        return made, dict(counts)

    def windows(
        self, group: list[Document], ids: list[list[int]], has_context: bool, chance: random.Random
    ) -> Iterator[tuple[int, list[Piece]]]:
        """Windows of `row_tokens`, each with the id that stands before it; the first is shorter at random, so that
        files do not all begin where a row does."""
        room = self.taste.row_tokens
        if sum(map(len, ids)) > 4 * room:
            room -= chance.randrange(room // 2)
        before, window = self.end, []
        for number, document in enumerate(group):
            head = self.head(document, has_context, number == 0)
            is_last = not has_context or number == len(group) - 1
            tail = (self.end,) if is_last else ()
            tokens = ids[number]
            start = 0
            while start < len(tokens) or head or (tail and start == len(tokens)):
                if len(head) >= room:
                    # A head stays whole: the window ends early.
                    yield before, window
                    before, window, room = self.end, [], self.taste.row_tokens
                    head = head[-room // 2 :]
                taken = min(len(tokens) - start, room - len(head))
                finishes = start + taken == len(tokens) and room - len(head) - taken >= len(tail)
                piece = Piece(number, head, start, start + taken, tail if finishes else ())
                window.append(piece)
                room -= len(head) + taken + len(piece.tail)
                start += taken
                head = ()
                last = self.end if piece.tail else tokens[start - 1] if taken else before
                if room <= 0:
                    yield before, window
                    before, window, room = last, [], self.taste.row_tokens
                if finishes:
                    break
        if window:
            yield before, window

    def head(self, document: Document, has_context: bool, is_first: bool) -> tuple[int, ...]:
        """What Qwen2.5-Coder puts before a file of a repository: the name once, then each path on a line."""
        if not has_context:
            return ()
        special, encode = self.vocabulary.special, self.vocabulary.encode
        name = [special(REPO_NAME), *encode(document.package + "\n")] if is_first else []
        return (*name, special(FILE_SEP), *encode(document.path + "\n"))

    @staticmethod
    def plain(piece: Piece, encoded: list) -> list[int]:
        return [*piece.head, *encoded[piece.document].ids[piece.start : piece.end], *piece.tail]

    def rearranged(
        self, window: list[Piece], group: list[Document], encoded: list, places: dict, chance: random.Random, counts: Counter
    ) -> list[int] | None:
        """A row with each piece that is long enough rearranged; None where none is."""
        if not any(piece.end - piece.start >= PIECE_TOKENS_MIN for piece in window):
            return None
        row = [] if chance.random() < self.taste.bare_share else [self.end]
        for piece in window:
            length = piece.end - piece.start
            written: list[int] = []
            if length >= PIECE_TOKENS_MIN:
                document = group[piece.document]
                if piece.document not in places:
                    places[piece.document] = scopes.scopes(document.text, document.language, document.path)
                offsets = encoded[piece.document].offsets
                span = offsets[piece.start][0], offsets[piece.end - 1][1]
                cut = fim.choose(document.text, places[piece.document], *span, chance)
                if cut:
                    is_suffix_first = chance.random() < self.taste.suffix_first_share
                    written = self.writer.write(cut, is_suffix_first, length + len(piece.tail))
                    if written:
                        counts["suffix_first" if is_suffix_first else "prefix_first"] += 1
            row += [*piece.head, *written] if written else self.plain(piece, encoded)
        return row


if __name__ == "__main__":
    main()
