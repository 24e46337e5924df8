"""A corpus from packages on disk: no client is asked."""

import tempfile
import unittest
import unittest.mock
from pathlib import Path

from .. import corpus, documents, travel
from ..fetch import ClientFailed, Fetched, Unavailable
from ..names import Wanted
from ..paths import Work
from .test_filters import module


class Corpus(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.work = Work(self.folder / "work")

    def store(self, name: str, files: dict[str, str], licence: str = "MIT", is_held_out: bool = False) -> Wanted:
        wanted = Wanted("pip", name, "python", is_held_out)
        corpus.store(self.work, wanted, Fetched(name, "1.0", licence, iter(files.items())))
        return wanted

    def test_merge(self):
        secret = "\nKEY = '" + "AKIA" + "ABCDEFGH01234567'\n"
        wanted = [
            self.store("apart", {"apart/a.py": module(60)}, is_held_out=True),
            self.store("one", {"one/a.py": module(30, 30) + secret, "one/copy.py": "# copied\n" + module(60)}),
            self.store("copyleft", {"c.py": module(20, 20)}, licence="GPL-3.0-only"),
        ]
        missing = Wanted("pip", "missing", "python")
        corpus.store(self.work, missing, Unavailable("no wheel"))
        manifest = corpus.merge(self.work, [*wanted, missing])
        train = list(documents.read(self.work.documents, "train"))
        self.assertEqual([(one.package, one.path) for one in train], [("one", "one/a.py")])
        self.assertNotIn("AKIA", train[0].text)
        self.assertEqual([one.package for one in documents.read(self.work.documents, "held-out")], ["apart"])
        self.assertEqual(manifest["duplicates"], {"near": 1})
        self.assertEqual(manifest["secrets"], {"cloud_access_key": 1})
        self.assertEqual({one["name"] for one in manifest["refused"]}, {"copyleft", "missing"})
        self.assertEqual([one["licence"] for one in manifest["packages"]], ["MIT", "MIT"])
        self.assertEqual(manifest["languages"]["python"]["train_files"], 1)

    def test_what_is_there_is_not_fetched_again(self):
        wanted = [self.store("one", {"a.py": module(30)})]
        before = corpus.record_path(self.work, wanted[0]).stat().st_mtime_ns
        corpus.fetch(self.work, wanted)
        self.assertEqual(corpus.record_path(self.work, wanted[0]).stat().st_mtime_ns, before)

    def test_a_held_out_package_shields_its_files_whatever_its_licence(self):
        text = module(60)
        apart = Wanted("pip", "apart", "python", True)
        corpus.store(self.work, apart, Fetched("apart", "1", "GPL-3.0-only", iter({"apart/a.py": text}.items())))
        self.assertIn("refused", corpus.read_record(self.work, apart))
        other = self.store("other", {"other/copied.py": text, "other/b.py": module(40, 40).replace("other", "own")})
        kept = corpus.merge(self.work, [apart, other])["packages"]
        self.assertEqual([(one["name"], one["kept"]["python"][0]) for one in kept], [("other", 1)])

    def test_what_a_client_failed_to_give_is_asked_for_again(self):
        wanted = Wanted("pip", "late", "python")
        corpus.store(self.work, wanted, ClientFailed("pip: no network"))
        given = {"late/a.py": module(40)}
        clients = {"pip": lambda name, downloads: Fetched(name, "1", "MIT", iter(given.items()))}
        with unittest.mock.patch.object(corpus, "CLIENTS", clients):
            corpus.fetch(self.work, [wanted])
        self.assertEqual(corpus.read_record(self.work, wanted)["files"], 1)

    def test_parcels_hold_the_corpus(self):
        wanted = [self.store(f"p{n}", {f"p{n}/a.py": module(30 + 9 * n, 30 + 9 * n).replace("other", f"o{n}")}) for n in range(6)]
        wanted.append(self.store("apart", {"apart/a.py": module(60)}, is_held_out=True))
        corpus.merge(self.work, wanted)
        parcels, back = self.folder / "parcels", self.folder / "back"
        parcels.mkdir()
        back.mkdir()
        (parcel,) = travel.pack(self.work.documents, parcels, 1 << 20, {})
        travel.unpack(parcel, back)
        for part in ("train", "held-out"):
            self.assertEqual(list(documents.read(back, part)), list(documents.read(self.work.documents, part)))
        parts, whole = self.folder / "parts", self.folder / "whole"
        parts.mkdir()
        self.assertGreater(len(travel.split(self.work.documents, parts, 3_000)), 1)
        travel.join(parts, whole)
        self.assertEqual({path.name for path in whole.iterdir()}, {path.name for path in self.work.documents.iterdir()})


if __name__ == "__main__":
    unittest.main()
