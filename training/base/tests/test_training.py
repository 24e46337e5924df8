"""What needs PyTorch and the tokenizers library: skipped where they are not installed.

    target/base-env/bin/python -m unittest training.base.tests.test_training
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from ..documents import Document
from ..paths import ROOT, SHIPPED_BASE
from .test_filters import module

HAS_TORCH = all(importlib.util.find_spec(name) for name in ("torch", "tokenizers", "safetensors", "numpy"))


@unittest.skipUnless(HAS_TORCH, "PyTorch is not installed here")
class Training(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        from .. import corpus, prepare, tokenizer
        from ..fetch import Fetched
        from ..names import Wanted
        from ..paths import Work

        cls.keeper = tempfile.TemporaryDirectory()
        cls.work = Work(Path(cls.keeper.name))
        wanted = []
        for number in range(8):
            one = Wanted("pip", f"p{number}", "python", number == 0)
            files = {f"p{number}/{n}.py": module(40, 40).replace("other", f"n{number}x{n}") for n in range(4)}
            corpus.store(cls.work, one, Fetched(one.name, "1", "MIT", iter(files.items())))
            wanted.append(one)
        corpus.merge(cls.work, wanted)
        trained = tokenizer.train((one.text for one in cls.documents("train")), 400)
        tokenizer.write(trained, cls.work.tokenizer, 512)
        cls.rows = cls.work.root / "rows"
        prepare.prepare(cls.work.documents, cls.work.tokenizer, cls.rows, prepare.Taste(64), {})

    @classmethod
    def tearDownClass(cls):
        cls.keeper.cleanup()

    @classmethod
    def documents(cls, part: str) -> list[Document]:
        from .. import documents

        return list(documents.read(cls.work.documents, part))

    def train(self, out: str, *more: str) -> list[float]:
        """Runs to the end; gives the losses of the steps."""
        folder = self.work.root / out
        command = [sys.executable, "-m", "training.base.train", "--size", "tiny", "--rows", str(self.rows)]
        command += ["--tokenizer", str(self.work.tokenizer), "--out", str(folder), "--steps", "12", "--threads", "1"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run([*command, "--valid-every", "5", *more], cwd=ROOT, env=environment, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]
        return [line["loss"] for line in lines if "loss" in line]

    def test_a_killed_run_goes_on_as_if_it_had_not_been(self):
        from .. import train

        whole = self.train("whole")
        self.assertEqual(len(whole), 12)
        # A run that dies after its checkpoint at step 5, with two more steps in its curve.
        plan = train.PLANS["tiny"]
        arguments = self.arguments("killed")
        torch_threads(1)
        run = train.Run(arguments, train.replace(plan, steps=12))
        for step in range(7):
            loss, norm = run.step()
            run.state.step += 1
            run.log({"loss": round(loss, 5), "norm": norm, "seconds": 0})
            if step == 4:
                run.save()
        resumed = self.train("killed")
        self.assertEqual(resumed, whole)

    def test_rows_that_come_later_are_taken_first(self):
        from .. import prepare
        from ..rows import Rows

        later = self.work.root / "later"
        rows = Rows([self.rows, later], 4)
        first = rows.count
        rows.step(0, first + 1, 0)
        self.assertEqual(sorted(set(rows.seen)), [1, 2])
        prepare.prepare(self.work.documents, self.work.tokenizer, later, prepare.Taste(64, seed=5), {})
        rows.refresh()
        rows.step(1, rows.count - first, 0)
        self.assertEqual(rows.seen[:first].sum(), first + 1)
        self.assertTrue((rows.seen[first:] == 1).all())

    def arguments(self, out: str):
        import argparse

        return argparse.Namespace(
            out=self.work.root / out, rows=[self.rows], tokenizer=self.work.tokenizer, size="tiny", init=None, seed=0,
            minutes=None, steps=12, no_compile=True, f32=False, valid_every=5, checkpoint_minutes=9, valid_rows=192,
        )  # fmt: skip

    def test_rows_hold_every_token_once(self):
        from .. import prepare
        from ..special import END
        from ..tokenizer import Vocabulary

        vocabulary = Vocabulary(self.work.tokenizer)
        maker = prepare.Maker(vocabulary, prepare.Taste(64, 0.0, 0.0, 0.0))
        group = [one for one in self.documents("train") if one.package == "p3"]
        rows, _ = maker.rows(group, 0)
        stream = [id for row in rows for id in row[1:]]
        expected = [id for one in group for id in [*vocabulary.encode(one.text), vocabulary.special(END)]]
        pad = vocabulary.special("<|fim_pad|>")
        self.assertEqual([id for id in stream if id != pad], expected)

    def test_rearranged_rows_spell_their_documents(self):
        from .. import prepare
        from ..tokenizer import Vocabulary

        vocabulary = Vocabulary(self.work.tokenizer)
        maker = prepare.Maker(vocabulary, prepare.Taste(64, 1.0, 0.5, 0.5))
        group = [one for one in self.documents("train") if one.package == "p2"]
        rows, counts = maker.rows(group, 0)
        self.assertTrue(all(len(row) == 65 for row in rows))
        self.assertGreater(counts["prefix_first"], 0)
        self.assertGreater(counts["suffix_first"], 0)

    def test_special_strings_in_a_file_are_text(self):
        from ..special import SPECIAL
        from ..tokenizer import Vocabulary

        for folder in (self.work.tokenizer, SHIPPED_BASE):
            vocabulary = Vocabulary(folder)
            ids = vocabulary.encode("a = '<|fim_middle|><|endoftext|>'")
            self.assertFalse({vocabulary.special(name) for name in SPECIAL} & set(ids))
            self.assertEqual([vocabulary.special(name) for name in SPECIAL], list(range(9)))

    def test_the_shipped_base_reads_and_writes_back(self):
        import torch

        from ..folder import load, save

        model = load(SHIPPED_BASE)
        out = self.work.root / "copy"
        save(model, out, SHIPPED_BASE, 0)
        again = load(out)
        for name, weight in model.state_dict().items():
            self.assertTrue(torch.equal(weight, again.state_dict()[name]), name)
        theirs = json.loads((SHIPPED_BASE / "config.json").read_text())
        self.assertEqual(json.loads((out / "config.json").read_text()), theirs)

    def test_the_cache_changes_nothing(self):
        import torch

        from ..model import Model
        from ..sizes import Shape

        for qk_norm in (False, True):
            model = Model(Shape(50, 32, 64, 2, 4, 2, head_dim=8, context_tokens=32, qk_norm=qk_norm)).eval()
            ids = torch.randint(0, 50, (1, 12), generator=torch.Generator().manual_seed(1))
            with torch.no_grad():
                whole = model.hidden(ids, 0, None)[0]
                first, cache = model.hidden(ids[:, :11], 0, None)
                last, _ = model.hidden(ids[:, 11:], 11, cache)
            torch.testing.assert_close(torch.cat([first, last], 1), whole, atol=1e-5, rtol=1e-5)


def torch_threads(count: int) -> None:
    import torch

    torch.set_num_threads(count)


if __name__ == "__main__":
    unittest.main()
