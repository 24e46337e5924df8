#!/usr/bin/env python3
"""Fetches well-known Python packages by name, with pip, and measures what learning each one's code gains.

Each package is one tenant. Packages land under target/bench-personal/ and are never committed: what is committed are
the figures, in docs/personalisation.md. `make bench-personal` runs this; arguments after `--` go to atelier-bench.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "target" / "bench-personal"
BENCH = ROOT / "target" / "release" / "atelier-bench"
DOCUMENT = ROOT / "docs" / "personalisation.md"
# Bytes unpacked of one package: the largest of the list has about 2 MB of Python.
UNPACKED_BYTES_MAX = 64 << 20


@dataclass(frozen=True)
class Package:
    """A package, its version so that another day measures the same, and who leads its code."""

    name: str
    version: str
    author: str


# The names that the model card of models/atelier-base lists as held out, one author each. Nothing is tuned on them.
MEASURED = [
    Package("toolz", "1.2.0", "Matthew Rocklin"),
    Package("boltons", "26.2.0", "Mahmoud Hashemi"),
    Package("more-itertools", "11.2.1", "Erik Rose, Bo Bayles"),
    Package("bottle", "0.13.4", "Marcel Hellkamp"),
    Package("peewee", "4.5.3", "Charles Leifer"),
    Package("mistune", "3.4.0", "Hsiaoming Yang"),
    Package("attrs", "26.1.0", "Hynek Schlawack"),
    Package("rich", "15.0.0", "Will McGugan"),
    Package("click", "8.5.1", "Armin Ronacher, Pallets"),
    Package("httpx", "0.28.1", "Tom Christie, Encode"),
    Package("marshmallow", "4.4.0", "Steven Loria"),
]

# What the learning rate and the rank are chosen on, and nothing is reported on but that choice.
TUNING = [
    Package("pypika", "0.51.1", "Timothy Heys"),
    Package("glom", "25.12.0", "Mahmoud Hashemi"),
    Package("funcy", "2.1", "Alexander Schepanovski"),
]


def fetch(package: Package, into: Path) -> None:
    """Puts the package's Python files under `into`, unless they are there."""
    stamp = into / ".complete"
    if stamp.exists() and stamp.read_text() == package.version:
        return
    downloads = WORK / "downloads" / f"{package.name}-{package.version}"
    if not downloads.is_dir() or len(list(downloads.iterdir())) != 1:
        shutil.rmtree(downloads, ignore_errors=True)
        print(f"fetching {package.name} {package.version}", file=sys.stderr)
        # The source archive: what a tenant would give is the whole folder, with its tests.
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--no-binary", ":all:", "--dest", str(downloads), f"{package.name}=={package.version}"]
        subprocess.run(command, check=True)
    archives = sorted(downloads.iterdir())
    if len(archives) != 1:
        raise SystemExit(f"pip gave {len(archives)} files for {package.name}, expected one")
    shutil.rmtree(into, ignore_errors=True)
    unpack(archives[0], into)
    stamp.write_text(package.version)


def unpack(archive: Path, into: Path) -> None:
    """Writes the Python files of a wheel or a source archive; other files and links are left out."""
    written = 0
    for name, content in python_files(archive):
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise SystemExit(f"{archive.name} holds the path {name}")
        written += len(content)
        if written > UNPACKED_BYTES_MAX:
            raise SystemExit(f"{archive.name} unpacks to more than {UNPACKED_BYTES_MAX} bytes")
        target = into / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def python_files(archive: Path):
    """Name and content of each Python file."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for info in wheel.infolist():
                # A wheel's scripts are copies of its modules.
                if info.filename.endswith(".py") and ".data/" not in info.filename:
                    yield info.filename, wheel.read(info)
    else:
        with tarfile.open(archive) as source:
            for member in source:
                if member.isfile() and member.name.endswith(".py"):
                    yield member.name, source.extractfile(member).read()


def fetch_all(packages: list[Package], into: Path) -> Path:
    """Fetches all and writes the list that atelier-bench reads."""
    for package in packages:
        fetch(package, into / package.name)
    into.joinpath("packages.json").write_text(json.dumps([asdict(package) for package in packages], indent=1))
    return into


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fetch-only", action="store_true", help="only download and unpack")
    parser.add_argument("--sweep", action="store_true", help="the learning-rate sweep on the tuning packages instead")
    parser.add_argument("--anew", action="store_true", help="forget what an earlier run has measured")
    arguments, handed_on = parser.parse_known_args()
    handed_on = [word for word in handed_on if word != "--"]

    kind = "sweep" if arguments.sweep else "personal"
    measured = fetch_all(MEASURED, WORK / "packages")
    tuning = fetch_all(TUNING, WORK / "tuning")
    if arguments.fetch_only:
        return
    out = WORK / f"{kind}.json"
    if arguments.anew:
        out.unlink(missing_ok=True)
        shutil.rmtree(WORK / f"{kind}.adapters", ignore_errors=True)
    folder = tuning if arguments.sweep else measured
    command = [str(BENCH), kind, "--packages", str(folder), "--out", str(out), "--document", str(DOCUMENT)]
    raise SystemExit(subprocess.run([*command, *handed_on], cwd=ROOT).returncode)


if __name__ == "__main__":
    main()
