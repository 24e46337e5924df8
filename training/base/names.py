"""The committed lists: which packages make the corpus, and which must never be in it.

A list is a file with one name a line; what follows `#` is a comment. `packages/LANGUAGE.txt` is learned from,
`packages/held-out.txt` is judged on, and the packages of bench/personal.py are held out whatever the lists say.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from .paths import HERE, ROOT

# Which client fetches a language's packages.
ECOSYSTEMS = {
    "python": "pip",
    "javascript": "npm",
    "typescript": "npm",
    "rust": "cargo",
    "java": "debian",
    "go": "debian",
}
PERSONAL = ROOT / "bench" / "personal.py"


@dataclass(frozen=True)
class Wanted:
    """A package to fetch."""

    ecosystem: str
    name: str
    # Of the list that names it; its files may be in another.
    language: str
    is_held_out: bool = False

    @property
    def key(self) -> str:
        """A file name, one for each package of an ecosystem."""
        return f"{self.ecosystem}--{self.name.replace('/', '--')}"


def canonical(ecosystem: str, name: str) -> str:
    """One spelling for all spellings of a name that an ecosystem takes for the same."""
    name = name.strip().lower()
    if ecosystem == "pip":
        return re.sub(r"[-_.]+", "-", name)
    return name.replace("_", "-") if ecosystem == "cargo" else name


def personal_names(path: Path = PERSONAL) -> list[str]:
    """The names in MEASURED and TUNING of bench/personal.py, read from its source so that none is forgotten."""
    names = []
    for statement in ast.parse(path.read_text()).body:
        if isinstance(statement, ast.Assign) and statement.targets[0].id in ("MEASURED", "TUNING"):
            names += [call.args[0].value for call in statement.value.elts]
    if not names:
        raise SystemExit(f"{path} names no packages in MEASURED or TUNING; what is to be held out?")
    return names


def read_list(path: Path) -> list[str]:
    """The names of one list, in its order."""
    if not path.exists():
        raise SystemExit(f"{path} is not there; a list of names, one a line, is what packages are fetched by")
    lines = path.read_text().splitlines()
    return [name for line in lines if (name := line.split("#")[0].strip())]


def held_out(folder: Path = HERE / "packages", personal: Path = PERSONAL) -> list[Wanted]:
    """Every package that is never learned from: `LANGUAGE NAME` lines of held-out.txt, and bench/personal.py's."""
    listed = [line.split() for line in read_list(folder / "held-out.txt")]
    pairs = [("python", name) for name in personal_names(personal)] + [(language, name) for language, name in listed]
    found = {}
    for language, name in pairs:
        ecosystem = ECOSYSTEMS[language]
        found.setdefault((ecosystem, canonical(ecosystem, name)), Wanted(ecosystem, name, language, True))
    return list(found.values())


def training(languages: list[str], folder: Path = HERE / "packages", personal: Path = PERSONAL) -> list[Wanted]:
    """The packages to learn from, each once, none held out."""
    kept_apart = {(wanted.ecosystem, canonical(wanted.ecosystem, wanted.name)) for wanted in held_out(folder, personal)}
    found = {}
    for language in languages:
        ecosystem = ECOSYSTEMS[language]
        for name in read_list(folder / f"{language}.txt"):
            key = (ecosystem, canonical(ecosystem, name))
            if key not in kept_apart:
                found.setdefault(key, Wanted(ecosystem, name, language))
    return list(found.values())
