"""`python -m training.base.tokenizer`: a byte-level BPE vocabulary for code, as crates/model/src/tokenizer.rs loads it.

Words are split as Qwen2.5-Coder does (each digit alone, a run of white space before a word keeps its last blank for
the word), so that indentation is runs of blanks with a token each: the trainer of the library finds those by itself,
and INDENTATIONS makes sure of the usual ones.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path

from . import documents
from .paths import CORPUS_FIRST, TOKENIZER_FIRST, Work, default_work, needed, write_atomically
from .special import END, PAD, SPECIAL

VOCABULARY = 16_384
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Bytes of text that the vocabulary is counted on: more changes few of its words.
TRAINING_BYTES_MAX = 80_000_000
# Characters of one text; longer ones tell little more and cost memory.
TEXT_CHARACTERS_MAX = 20_000
# Widths of indentation that deserve a token wherever they are rare in the corpus. One less than a width stands before
# a word, whose token takes the last blank.
INDENTATIONS = tuple(width for step in (4, 8, 12, 16, 20, 24) for width in (step - 1, step))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=default_work().root)
    parser.add_argument("--vocabulary", type=int, default=VOCABULARY)
    parser.add_argument("--context", type=int, default=2048, help="written to tokenizer_config.json")
    arguments = parser.parse_args()
    work = Work(arguments.work)
    trained = train(sample(work.documents), arguments.vocabulary)
    write(trained, work.tokenizer, arguments.context)
    held_out = [document.text for document in documents.read(work.documents, "held-out")]
    size = sum(len(text.encode()) for text in held_out)
    tokens = sum(len(trained.encode(text, add_special_tokens=False).ids) for text in held_out)
    print(f"{trained.get_vocab_size()} tokens; {size / tokens:.2f} bytes per token on held-out files")


def sample(folder: Path) -> Iterator[str]:
    """Documents at random, until there is enough; every language by its share."""
    manifest = json.loads(needed(folder / "manifest.json", CORPUS_FIRST).read_text())
    total = sum(counts["train_bytes"] for counts in manifest["languages"].values())
    share = min(1.0, TRAINING_BYTES_MAX / max(total, 1))
    chosen = random.Random(0)
    for document in documents.read(folder, "train"):
        if chosen.random() < share:
            yield document.text[:TEXT_CHARACTERS_MAX]


def train(texts: Iterator[str], vocabulary: int):
    """A tokenizer of the tokenizers library."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        # A word seen fewer times than this in 80 MB is a name of one package.
        min_frequency=4,
    )
    tokenizer.train_from_iterator(with_indentations(texts), trainer)
    return tokenizer


def with_indentations(texts: Iterator[str]) -> Iterator[str]:
    """The texts, then enough of each usual indentation."""
    yield from texts
    for width in INDENTATIONS:
        yield from (" " * width + "\n",) * 8


def write(tokenizer, folder: Path, context: int) -> None:
    """The two files of a Hugging Face folder."""
    write_atomically(folder / "tokenizer.json", tokenizer.to_str(pretty=True).encode())
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": PAD,
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
    }
    write_atomically(folder / "tokenizer_config.json", json.dumps(config, indent=1).encode())


class Vocabulary:
    """A tokenizer read from a folder: plain text to ids, special tokens by name."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(needed(folder / "tokenizer.json", TOKENIZER_FIRST)))
        # Strings of special tokens in a file are text, as in encode_plain of crates/model.
        self.tokenizer.encode_special_tokens = True
        self.size = self.tokenizer.get_vocab_size()
        missing = [name for name in SPECIAL if self.tokenizer.token_to_id(name) is None]
        if missing:
            raise SystemExit(f"the tokenizer of {folder} lacks {', '.join(missing)}")

    def special(self, name: str) -> int:
        """Id of a special token."""
        return self.tokenizer.token_to_id(name)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, none of them special."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        """Text of ids, special ones left out."""
        return self.tokenizer.decode(ids, skip_special_tokens=True)


if __name__ == "__main__":
    main()
