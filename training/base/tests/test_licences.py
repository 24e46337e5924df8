"""The allow-list, in SPDX and as packages write it."""

import unittest
from email.parser import HeaderParser

from ..fetch import debian, npm, pip
from ..licences import is_allowed, normalise


class Licences(unittest.TestCase):
    def test_expressions(self):
        cases = {
            "MIT": True,
            "mit": True,
            "MIT OR Apache-2.0": True,
            "MIT/Apache-2.0": True,
            "GPL-3.0-only OR MIT": True,
            "GPL-3.0-only AND MIT": False,
            "(MIT OR GPL-2.0) AND BSD-3-Clause": True,
            "(MIT AND GPL-2.0) OR LGPL-3.0": False,
            "Apache-2.0 WITH LLVM-exception": True,
            "Apache-2.0 WITH Commons-Clause": False,
            "GPL-2.0 WITH Classpath-exception-2.0": False,
            "BSD License": True,
            "The MIT License (MIT)": True,
            "Apache License, Version 2.0": True,
            "": False,
            "Proprietary": False,
            "SEE LICENSE IN LICENSE.txt": False,
            "MIT OR": False,
            "(MIT": False,
            "AGPL-3.0": False,
            "MPL-2.0": False,
            "UNLICENSED": False,
        }
        for written, expected in cases.items():
            self.assertEqual(is_allowed(written), expected, written)

    def test_python_metadata(self):
        def check(headers: str, expected: bool):
            self.assertEqual(is_allowed(pip.licence_of(HeaderParser().parsestr(headers))), expected, headers)

        check("License-Expression: MIT AND BSD-3-Clause\n", True)
        check("Classifier: License :: OSI Approved :: MIT License\nLicense: GPL\n", True)
        check(
            "Classifier: License :: OSI Approved :: MIT License\n"
            "Classifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)\n",
            False,
        )
        check("License: BSD-3-Clause\n", True)
        check("License: " + "text " * 100 + "\n", False)
        check("Name: nothing\n", False)

    def test_npm_metadata(self):
        self.assertTrue(is_allowed(npm.licence_of({"license": {"type": "MIT"}})))
        self.assertTrue(is_allowed(npm.licence_of({"licenses": [{"type": "GPL-2.0"}, {"type": "MIT"}]})))
        self.assertFalse(is_allowed(npm.licence_of({})))

    def test_debian_copyright(self):
        text = "Format: x\n\nFiles: *\nCopyright: a\nLicense: Expat or GPL-2+\n\nFiles: debian/*\nLicense: GPL-3+\n"
        self.assertTrue(is_allowed(debian.licence_of(text)))
        self.assertFalse(is_allowed(debian.licence_of(text.replace("Expat or ", ""))))

    def test_normalised_is_short(self):
        self.assertEqual(normalise("MIT / Apache 2.0"), "MIT OR Apache-2.0")


if __name__ == "__main__":
    unittest.main()
