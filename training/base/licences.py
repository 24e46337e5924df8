"""Which licences the corpus takes: an allow-list of SPDX identifiers, and how packages write them."""

from __future__ import annotations

import re

# Permissive: use and change freely, name the authors at most. No copyleft, no field-of-use limits.
ALLOWED = frozenset(
    {
        "0BSD",
        "Apache-2.0",
        "BlueOak-1.0.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BSL-1.0",
        "CC0-1.0",
        "HPND",
        "ISC",
        "MIT",
        "MIT-0",
        "MIT-CMU",
        "NCSA",
        "PostgreSQL",
        "PSF-2.0",
        "Python-2.0",
        "Unicode-3.0",
        "Unicode-DFS-2016",
        "Unlicense",
        "Zlib",
        # Metadata that says "BSD" and no more; each BSD variant is permissive.
        "LicenseRef-BSD",
    }
)
ALLOWED_EXCEPTIONS = frozenset({"LLVM-exception"})

# What metadata writes for an SPDX identifier, lower case and without punctuation at the ends.
WRITTEN = {
    "apache": "Apache-2.0",
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache-2": "Apache-2.0",
    "apache2": "Apache-2.0",
    "apache license": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license version 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "apache software license 2.0": "Apache-2.0",
    "asl 2.0": "Apache-2.0",
    "bsd": "LicenseRef-BSD",
    "bsd license": "LicenseRef-BSD",
    "new bsd": "BSD-3-Clause",
    "new bsd license": "BSD-3-Clause",
    "modified bsd license": "BSD-3-Clause",
    "modified bsd": "BSD-3-Clause",
    "simplified bsd": "BSD-2-Clause",
    "2-clause bsd": "BSD-2-Clause",
    "3-clause bsd": "BSD-3-Clause",
    "3-clause bsd license": "BSD-3-Clause",
    "bsd 2-clause": "BSD-2-Clause",
    "bsd 3-clause": "BSD-3-Clause",
    "bsd 3-clause license": "BSD-3-Clause",
    "bsd-3": "BSD-3-Clause",
    "bsd-2": "BSD-2-Clause",
    "boost software license 1.0 (bsl-1.0)": "BSL-1.0",
    "cc0 1.0 universal (cc0 1.0) public domain dedication": "CC0-1.0",
    "expat": "MIT",
    "historical permission notice and disclaimer (hpnd)": "HPND",
    "isc license": "ISC",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "the mit license": "MIT",
    "the mit license (mit)": "MIT",
    "mit no attribution license (mit-0)": "MIT-0",
    "psf": "PSF-2.0",
    "psf license": "PSF-2.0",
    "python software foundation license": "PSF-2.0",
    "the unlicense (unlicense)": "Unlicense",
    "zlib/libpng license": "Zlib",
}
CANONICAL = {name.lower(): name for name in ALLOWED | ALLOWED_EXCEPTIONS}

TOKEN = re.compile(r"\s*(\(|\)|[A-Za-z0-9.+:-]+)")


class NotAnExpression(ValueError):
    """The text is no SPDX expression."""


def normalise(written: str) -> str:
    """SPDX for what a package writes, where the table or a slash between two knows it; else the text as it is."""
    text = " ".join(written.split()).strip("\"'")
    known = WRITTEN.get(text.lower().strip(" .\"'"))
    if known:
        return known
    # Old crates write "MIT/Apache-2.0" and mean a choice.
    if "/" in text and not re.search(r"\b(AND|OR|WITH)\b", text):
        return " OR ".join(normalise(part) for part in text.split("/"))
    return text


def is_allowed(expression: str) -> bool:
    """Whether some choice that the expression leaves consists of allowed licences only."""
    try:
        return Parser(normalise(expression)).parse()
    except NotAnExpression:
        return False


class Parser:
    """SPDX expressions by descent; AND binds more tightly than OR, WITH more tightly than both."""

    def __init__(self, text: str) -> None:
        self.words: list[str] = []
        position = 0
        text = text.strip()
        while position < len(text):
            match = TOKEN.match(text, position)
            if not match:
                raise NotAnExpression(text)
            self.words.append(match.group(1))
            position = match.end()
        self.index = 0

    def parse(self) -> bool:
        """Whether the expression is allowed."""
        allowed = self.alternatives()
        if self.index != len(self.words):
            raise NotAnExpression(" ".join(self.words))
        return allowed

    def peek(self) -> str:
        return self.words[self.index] if self.index < len(self.words) else ""

    def take(self) -> str:
        word = self.peek()
        if not word:
            raise NotAnExpression("ends early")
        self.index += 1
        return word

    def alternatives(self) -> bool:
        allowed = self.all_of()
        while self.peek().upper() == "OR":
            self.take()
            other = self.all_of()
            allowed = allowed or other
        return allowed

    def all_of(self) -> bool:
        allowed = self.one()
        while self.peek().upper() == "AND":
            self.take()
            other = self.one()
            allowed = allowed and other
        return allowed

    def one(self) -> bool:
        word = self.take()
        if word == "(":
            allowed = self.alternatives()
            if self.take() != ")":
                raise NotAnExpression("a bracket is missing")
            return allowed
        allowed = word.lower() in CANONICAL and CANONICAL[word.lower()] in ALLOWED
        if self.peek().upper() == "WITH":
            self.take()
            allowed = CANONICAL.get(self.take().lower(), "") in ALLOWED_EXCEPTIONS and allowed
        return allowed
