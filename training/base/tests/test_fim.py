"""Fill-in-the-middle: nothing is lost or moved, and both orders say what they are."""

import random
import unittest

from .. import fim, items, scopes
from ..schedule import rate
from ..sizes import PLANS, SHAPES, parameter_count
from ..special import END, FIM_MIDDLE, FIM_PREFIX, FIM_SUFFIX

TEXT = "def area(w, h):\n    größe = mul(w, h)\n    return größe\n\nif ready:\n    go(1)\n" * 3
MARKS = {FIM_PREFIX: 1_000_001, FIM_MIDDLE: 1_000_002, FIM_SUFFIX: 1_000_003, END: 1_000_000}


def encode(text: str) -> list[int]:
    """One token for each character: a tokenizer that tests can read."""
    return list(map(ord, text))


def decode(ids: list[int]) -> str:
    return "".join(map(chr, ids))


class Cuts(unittest.TestCase):
    def setUp(self):
        self.writer = fim.Writer(encode, MARKS.__getitem__)

    def test_the_parts_are_the_text(self):
        places = scopes.scopes(TEXT, "python")
        for seed in range(500):
            chance = random.Random(seed)
            start, end = sorted(chance.sample(range(len(TEXT) + 1), 2))
            cut = fim.choose(TEXT, places, start, end, chance)
            self.assertIsNotNone(cut)
            self.assertEqual(cut.prefix + cut.middle + cut.suffix, TEXT[start:end])
            self.assertTrue(cut.middle)

    def test_prefix_first(self):
        ids = self.writer.write(fim.Cut("ab", "cd", "ef"), False, 100)
        prefix, suffix, middle, end = (MARKS[name] for name in (FIM_PREFIX, FIM_SUFFIX, FIM_MIDDLE, END))
        self.assertEqual(ids, [prefix, *encode("ab"), suffix, *encode("ef"), middle, *encode("cd"), end])

    def test_suffix_first(self):
        ids = self.writer.write(fim.Cut("ab", "cd", "ef"), True, 100)
        prefix, suffix, middle, end = (MARKS[name] for name in (FIM_PREFIX, FIM_SUFFIX, FIM_MIDDLE, END))
        self.assertEqual(ids, [prefix, suffix, *encode("ef"), middle, *encode("abcd"), end])

    def test_round_trip_in_both_orders(self):
        places = scopes.scopes(TEXT, "python")
        for seed in range(200):
            chance = random.Random(seed)
            cut = fim.choose(TEXT, places, 0, len(TEXT), chance)
            for is_suffix_first in (False, True):
                ids = self.writer.write(cut, is_suffix_first, 10_000)
                self.assertEqual(self.joined(ids, is_suffix_first), TEXT)

    def joined(self, ids: list[int], is_suffix_first: bool) -> str:
        self.assertEqual((ids[0], ids[-1]), (MARKS[FIM_PREFIX], MARKS[END]))
        suffix, middle = ids.index(MARKS[FIM_SUFFIX]), ids.index(MARKS[FIM_MIDDLE])
        before, after, last = ids[1:suffix], ids[suffix + 1 : middle], ids[middle + 1 : -1]
        if is_suffix_first:
            self.assertEqual(before, [])
            return decode(last) + decode(after)
        return decode(before) + decode(last) + decode(after)

    def test_room_is_kept_and_the_middle_is_whole(self):
        for room in range(4, 60):
            ids = self.writer.write(fim.Cut("a" * 20, "middle", "b" * 20), False, room)
            self.assertLessEqual(len(ids), room)
            if ids:
                self.assertEqual(decode(ids[ids.index(MARKS[FIM_MIDDLE]) + 1 : -1]), "middle")
            else:
                self.assertLess(room, 10)
        # Context goes from its far ends: what stays of the prefix is what stands before the place.
        ids = self.writer.write(fim.Cut("0123456789", "m", "abcdefghij"), False, 15)
        self.assertEqual(decode(ids[1 : ids.index(MARKS[FIM_SUFFIX])]), "56789"[-5:])


class Scopes(unittest.TestCase):
    def test_lines_are_trimmed(self):
        found = [TEXT_[start:end] for TEXT_ in ["a\n\n   b c\nlast"] for start, end, _ in scopes.scopes(TEXT_, "none")]
        self.assertEqual(found, ["a", "b c", "last"])

    def test_syntax_of_python(self):
        if scopes.parser_of("python") is None:
            self.skipTest("the grammars are not installed")
        text = "def area(w, h):\n    größe = mul(w, h)\n    return größe\n\nif ready:\n    go(1)\n"
        found = {kind: [text[start:end] for start, end, of in scopes.scopes(text, "python") if of == kind] for kind in range(5)}
        self.assertEqual(found[scopes.ARGUMENTS], ["w, h", "1"])
        self.assertEqual(found[scopes.BODY], ["größe = mul(w, h)\n    return größe"])
        self.assertEqual(found[scopes.BLOCK], ["go(1)"])


class Items(unittest.TestCase):
    def test_agreement(self):
        check = lambda written, target, pieces, right: self.assertEqual(  # noqa: E731
            items.agrees(written, target, pieces), right, (written, target, pieces)
        )
        check("return x + 1\nmore", "return x + 2", 1, True)
        check("return x + 1\nmore", "return x + 2", 5, False)
        check("return x", "return x", 20, True)
        check("return x + 1", "return x", 20, False)
        check("\nreturn x", "return x", 1, False)


class Figures(unittest.TestCase):
    def test_the_rate_rises_stays_and_falls(self):
        self.assertAlmostEqual(rate(0, 10, 0.0, 0.4), 0.1)
        self.assertEqual(rate(50, 10, 0.5, 0.4), 1.0)
        self.assertAlmostEqual(rate(80, 10, 0.8, 0.4), 0.5)
        self.assertEqual(rate(100, 10, 1.0, 0.4), 0.0)

    def test_sizes(self):
        self.assertEqual(parameter_count(SHAPES["cpu"]), 14_095_680)
        self.assertLess(2 * parameter_count(SHAPES["small"]), 62_000_000)
        self.assertEqual(parameter_count(SHAPES["small"]), 18_488_704)
        self.assertEqual(set(SHAPES), set(PLANS))


if __name__ == "__main__":
    unittest.main()
