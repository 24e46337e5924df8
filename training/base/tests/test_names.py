"""What is held out stays out, whatever the lists say."""

import tempfile
import unittest
from pathlib import Path

from .. import corpus, names
from ..languages import LANGUAGES


class HeldOut(unittest.TestCase):
    def test_every_package_of_the_personal_benchmark_is_held_out(self):
        apart = {names.canonical("pip", wanted.name) for wanted in names.held_out() if wanted.ecosystem == "pip"}
        self.assertLessEqual({"toolz", "attrs", "rich", "click", "httpx", "marshmallow", "glom", "funcy"}, apart)
        self.assertEqual({names.canonical("pip", name) for name in names.personal_names()} - apart, set())

    def test_no_committed_list_names_one_for_learning(self):
        apart = {(one.ecosystem, names.canonical(one.ecosystem, one.name)) for one in names.held_out()}
        for language in LANGUAGES:
            for name in names.read_list(names.HERE / "packages" / f"{language}.txt"):
                ecosystem = names.ECOSYSTEMS[language]
                # Listed twice is allowed only where it is filtered, which the next test shows.
                key = ecosystem, names.canonical(ecosystem, name)
                chosen = {(one.ecosystem, names.canonical(ecosystem, one.name)) for one in names.training([language])}
                self.assertFalse(key in apart and key in chosen, name)

    def test_another_spelling_does_not_get_in(self):
        with tempfile.TemporaryDirectory() as folder:
            lists = Path(folder)
            (lists / "python.txt").write_text("Attrs\nMore_Itertools  # a spelling\nflask\nflask\n")
            (lists / "rust.txt").write_text("regex_syntax\nserde\n")
            (lists / "held-out.txt").write_text("rust regex-syntax\n")
            learned = names.training(["python", "rust"], lists)
            self.assertEqual([one.name for one in learned], ["flask", "serde"])
            selected = corpus.select(["python", "rust"], lists)
            self.assertEqual([one.name for one in selected if not one.is_held_out], ["flask", "serde"])


if __name__ == "__main__":
    unittest.main()
