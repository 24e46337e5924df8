"""`python -m training.base.evaluate OLD NEW ...`: model folders side by side on the same held-out files and places.

Bits per byte: all bytes of the held-out files (or the first ones of each package, evenly) in windows of 512 tokens of
the model's own tokenizer, so that vocabularies compare. First lines: greedy, in the order that Atelier asks in and in
the other; right up to 1, 5 and 20 words and signs, and the whole line.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
from collections.abc import Iterable
from pathlib import Path

import torch

from . import documents, generate, items
from .documents import Document
from .folder import load
from .items import Item
from .model import IGNORED, Model
from .paths import default_work
from .progress import Progress
from .special import END
from .tokenizer import Vocabulary

WINDOW_TOKENS = 512
WINDOWS_PER_PASS = 8
PIECES = (1, 5, 20)
TOKENS_MAX = 40
RESAMPLES = 1_000
EXAMPLES = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--documents", type=Path, default=default_work().documents)
    parser.add_argument("--out", type=Path, default=default_work().root / "evaluation.json")
    parser.add_argument("--items", type=int, default=100, help="places of each language")
    parser.add_argument("--language-bytes-max", type=int, default=600_000)
    parser.add_argument("--languages", nargs="+")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--bf16", action="store_true", help="faster; losses are then good to about 0.003")
    arguments = parser.parse_args()
    if arguments.items < 1:
        parser.error("--items takes a number from 1")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    held_out = list(documents.read(arguments.documents, "held-out"))
    if arguments.languages:
        held_out = [document for document in held_out if document.language in arguments.languages]
        if not held_out:
            raise SystemExit(f"the corpus holds no files of {', '.join(arguments.languages)} out")
    found = evaluate(
        arguments.folders, held_out, arguments.items, arguments.language_bytes_max, arguments.seed, arguments.bf16
    )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    arguments.out.with_suffix(".examples.md").write_text(examples_text(found["examples"]))
    print(table(found))


def evaluate(
    folders: list[Path], held_out: list[Document], count: int, bytes_max: int, seed: int, is_bf16: bool = False
) -> dict:
    """All figures, of all folders; the first folder is what the others are compared with."""
    places = items.choose(held_out, count, seed)
    texts = few(held_out, bytes_max, seed)
    shown = random.Random(seed).sample(range(len(places)), min(EXAMPLES, len(places)))
    models, examples = [], [{"item": vars(places[index]), "written": {}} for index in shown]
    progress = Progress("evaluate", len(folders) * (len(texts) + 2 * len(places)))
    for folder in folders:
        model, vocabulary = load(folder).eval(), Vocabulary(folder)
        if vocabulary.size > model.shape.vocab_size:
            raise SystemExit(f"the tokenizer of {folder} has more tokens than its model")
        figures = {"folder": str(folder), "bits_per_byte": {}, "lines": {}}
        with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
            sums = {}
            for text in texts:
                nats = total_nats(model, vocabulary, text.text)
                old = sums.get(text.language, (0.0, 0))
                sums[text.language] = old[0] + nats, old[1] + len(text.text.encode())
                progress.advance()
        figures["bits_per_byte"] = {name: nats / math.log(2) / size for name, (nats, size) in sorted(sums.items())}
        for order in ("prefix_first", "suffix_first"):
            marks, written = first_lines(model, vocabulary, places, order == "suffix_first", progress)
            figures["lines"][order] = {"items": marks, "share": shares(places, marks)}
            if order == "prefix_first":
                for example, index in zip(examples, shown, strict=True):
                    example["written"][str(folder)] = written[index]
        models.append(figures)
    return {
        "seed": seed, "languages": sorted(sums), "items": len(places), "documents": len(texts),
        "bytes": sum(len(text.text.encode()) for text in texts), "models": models,
        "differences": [differences(places, models[0], other) for other in models[1:]], "examples": examples,
    }  # fmt: skip


def few(held_out: Iterable[Document], bytes_max: int, seed: int) -> list[Document]:
    """Files of each language up to so many bytes, each package in turn."""
    packages: dict[tuple[str, str], list[Document]] = {}
    for document in held_out:
        packages.setdefault((document.language, document.package), []).append(document)
    chance = random.Random(f"texts {seed}")
    for files in packages.values():
        chance.shuffle(files)
    left = {language: bytes_max for language, _ in packages}
    kept = []
    while any(packages.values()):
        for (language, _), files in sorted(packages.items()):
            if files:
                document = files.pop()
                size = len(document.text.encode())
                if size <= left[language]:
                    left[language] -= size
                    kept.append(document)
    return kept


@torch.no_grad()
def total_nats(model: Model, vocabulary: Vocabulary, text: str) -> float:
    """Sum of the losses of every token of a text."""
    stream = [vocabulary.special(END), *vocabulary.encode(text)]
    windows = [stream[start : start + WINDOW_TOKENS + 1] for start in range(0, len(stream) - 1, WINDOW_TOKENS)]
    total = 0.0
    for start in range(0, len(windows), WINDOWS_PER_PASS):
        part = windows[start : start + WINDOWS_PER_PASS]
        width = max(map(len, part)) - 1
        ids = torch.zeros(len(part), width, dtype=torch.long)
        targets = torch.full((len(part), width), IGNORED)
        for row, window in enumerate(part):
            ids[row, : len(window) - 1] = torch.tensor(window[:-1])
            targets[row, : len(window) - 1] = torch.tensor(window[1:])
        total += model(ids, targets).item() * sum(len(window) - 1 for window in part)
    return total


def first_lines(
    model: Model, vocabulary: Vocabulary, places: list[Item], is_suffix_first: bool, progress: Progress
) -> tuple[list[dict], list[str]]:
    """What is right at each place, and what was written there."""
    marks, texts = [], []
    for item in places:
        ids = generate.prompt(vocabulary, item.prefix, item.suffix, is_suffix_first)
        written, is_ended = generate.complete(model, vocabulary, ids, TOKENS_MAX)
        mark = {f"at_{count}": items.agrees(written, item.target, count) for count in PIECES}
        mark["line"] = items.first_line(written, item.target) == item.target
        mark["ended"] = is_ended
        marks.append(mark)
        texts.append(written)
        progress.advance()
    return marks, texts


def shares(places: list[Item], marks: list[dict]) -> dict[str, dict[str, float]]:
    """Percentages by language, and over all."""
    found = {}
    for language in [*sorted({item.language for item in places}), "all"]:
        of = [mark for item, mark in zip(places, marks, strict=True) if language in (item.language, "all")]
        found[language] = {name: 100 * sum(mark[name] for mark in of) / len(of) for name in of[0]}
    return found


def differences(places: list[Item], old: dict, new: dict) -> dict:
    """New minus old: bits per byte, and points of whole first lines with their paired 95 % interval over places."""
    chance = random.Random(0)
    pairs = list(zip(old["lines"]["prefix_first"]["items"], new["lines"]["prefix_first"]["items"], strict=True))
    points = {}
    for language in [*old["bits_per_byte"], "all"]:
        gains = [
            100 * (after["line"] - before["line"])
            for item, (before, after) in zip(places, pairs, strict=True)
            if language in (item.language, "all")
        ]
        if gains:
            means = sorted(sum(chance.choices(gains, k=len(gains))) / len(gains) for _ in range(RESAMPLES))
            interval = means[RESAMPLES // 40], means[-RESAMPLES // 40]
            points[language] = {"points": sum(gains) / len(gains), "from": interval[0], "to": interval[1]}
    bits = {name: new["bits_per_byte"][name] - bits for name, bits in old["bits_per_byte"].items()}
    return {"folder": new["folder"], "bits_per_byte": bits, "line": points}


def table(found: dict) -> str:
    """The figures as a Markdown table."""
    head = ["language", "model", "bits/byte", "1 right", "5 right", "20 right", "whole line", "ended", "line, suffix first"]
    lines = [row(head), row(["---"] * 2 + ["---:"] * (len(head) - 2))]
    for language in [*found["languages"], "all"]:
        for model in found["models"]:
            asked = model["lines"]["prefix_first"]["share"].get(language)
            other = model["lines"]["suffix_first"]["share"].get(language)
            if asked is None:
                continue
            bits = model["bits_per_byte"].get(language)
            cells = [language, Path(model["folder"]).name, f"{bits:.3f}" if bits else ""]
            cells += [f"{asked[name]:.1f} %" for name in ("at_1", "at_5", "at_20", "line", "ended")]
            lines.append(row([*cells, f"{other['line']:.1f} %"]))
    return "\n".join(lines)


def row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def examples_text(examples: list[dict]) -> str:
    """Completions that nobody picked, as text."""
    parts = [f"## {len(examples)} completions of held-out files\n\nDrawn by the seed, picked by nobody; `▮` is the place.\n"]
    for number, example in enumerate(examples, 1):
        item = example["item"]
        before = "\n".join(item["prefix"].split("\n")[-6:])
        after = "\n".join(item["suffix"].split("\n")[:3])
        fence = "~" * max(4, 1 + max(map(len, re.findall("~+", before + after)), default=0))
        parts.append(f"### {number}. {item['package']}, {item['language']}\n\n{fence}\n{before}▮{after}\n{fence}\n")
        parts.append(f"- in the file: {quoted(item['target'])}")
        parts += [f"- {Path(folder).name}: {quoted(text)}" for folder, text in example["written"].items()]
        parts.append("")
    return "\n".join(parts)


def quoted(text: str) -> str:
    return "``" + text.replace("\n", "⏎").replace("`", "'") + "``" if text.strip() else "nothing"


if __name__ == "__main__":
    main()
