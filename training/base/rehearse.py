"""`python -m training.base.rehearse`: the whole recipe at the tiny size, from package names to a model that Atelier loads.

Under ten minutes on one core. It shows that every step works on this machine; the model itself knows next to nothing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from .paths import HERE, ROOT, SHIPPED_BASE

VOCABULARY = 2_048
LISTS = HERE / "packages" / "rehearsal"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "target" / "base-rehearsal")
    parser.add_argument("--atelier", type=Path, default=ROOT / "target" / "release" / "atelier", help="a built binary")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    started = time.monotonic()
    work = arguments.work.resolve()
    environment = os.environ | {
        "OMP_NUM_THREADS": str(arguments.threads), "RAYON_NUM_THREADS": str(arguments.threads),
        "TOKENIZERS_PARALLELISM": "false",
    }  # fmt: skip
    for label, command in steps(work, arguments):
        at = time.monotonic()
        print(f"== {label}", flush=True)
        if subprocess.run(command, cwd=ROOT, env=environment).returncode != 0:
            raise SystemExit(f"the rehearsal failed at: {label}")
        print(f"== {label}: {time.monotonic() - at:.0f} s", flush=True)
    print(f"the rehearsal took {time.monotonic() - started:.0f} s")


def steps(work: Path, arguments: argparse.Namespace) -> list[tuple[str, list[str]]]:
    """Label and command of each step."""
    threads = ["--threads", str(arguments.threads)]
    languages = ["--languages", "python", "javascript", "typescript", "rust"]
    run, model, rows = work / "run", work / "model", work / "rows"
    found = [
        ("corpus", verb("corpus", "all", "--work", work, "--lists", LISTS, *languages)),
        ("tokenizer", verb("tokenizer", "--work", work, "--vocabulary", VOCABULARY, "--context", 512)),
        ("prepare", verb("prepare", "--work", work, "--row-tokens", 256)),
        (
            "train",
            verb(
                "train", "--size", "tiny", "--rows", rows, "--tokenizer", work / "tokenizer", "--out", run,
                "--steps", arguments.steps, "--valid-every", 50, *threads,
            ),
        ),
        ("export", verb("export", run, model)),
        (
            "evaluate",
            verb(
                "evaluate", SHIPPED_BASE, model, "--documents", work / "documents", "--out", work / "evaluation.json",
                "--items", 4, "--language-bytes-max", 30_000, *threads,
            ),
        ),
        ("picture", verb("picture", run, model / "curve.svg")),
        (
            "card",
            verb(
                "card", "--name", "rehearsal", "--run", run, "--documents", work / "documents",
                "--evaluation", work / "evaluation.json", "--out", model / "README.md",
            ),
        ),
    ]  # fmt: skip
    if arguments.atelier.exists():
        found.append(("load", [str(arguments.atelier), "--data", str(work / "data"), "doctor", "--base", str(model)]))
    else:
        print(f"{arguments.atelier} is not built, so loading is not tried", file=sys.stderr)
    return found


def verb(name: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", f"training.base.{name}", *map(str, arguments)]


if __name__ == "__main__":
    main()
