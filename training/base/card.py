"""`python -m training.base.card`: the model card from the figures of a run; no figure is written by hand."""

from __future__ import annotations

import argparse
import json
import textwrap
from pathlib import Path
from string import Template

from .evaluate import examples_text, table
from .licences import CANONICAL, normalise
from .paths import CORPUS_FIRST, HERE, RUN_FIRST, default_work, needed
from .sizes import Shape, parameter_count
from .train import RUN

DATA = "DATA.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--evaluation", type=Path, default=default_work().root / "evaluation.json")
    parser.add_argument("--documents", type=Path, default=default_work().documents)
    parser.add_argument("--picture", default="curve.svg")
    parser.add_argument("--out", type=Path, required=True, help="the card; DATA.md lands beside it")
    arguments = parser.parse_args()
    manifest = json.loads(needed(arguments.documents / "manifest.json", CORPUS_FIRST).read_text())
    arguments.out.write_text(card(arguments, manifest))
    arguments.out.with_name(DATA).write_text(data(arguments.name, manifest))


def data(name: str, manifest: dict) -> str:
    """The packages that were learned from, by licence."""
    by_licence: dict[str, list[dict]] = {}
    for one in manifest["packages"]:
        if not one["held_out"]:
            by_licence.setdefault(plain(one["licence"]), []).append(one)
    parts = [
        f"# What {name} learned from\n",
        "Package and version by the licence that the package's metadata states, most packages first. What was taken of "
        "each, with its digest, is in training/base/corpus-manifest.json.\n",
    ]
    for licence, packages in sorted(by_licence.items(), key=lambda pair: (-len(pair[1]), pair[0])):
        size = sum(kept for one in packages for _, kept in one["kept"].values())
        parts.append(f"## {licence}\n\nPackages: {len(packages)}, {size / 1e6:.1f} MB.\n")
        for ecosystem in sorted({one["ecosystem"] for one in packages}):
            named = [f"{one['name']} {one['version']}" for one in packages if one["ecosystem"] == ecosystem]
            parts.append(textwrap.fill(f"{ecosystem}: {', '.join(named)}", 118, break_on_hyphens=False) + "\n")
    return "\n".join(parts)


def plain(licence: str) -> str:
    """One spelling for brackets and names that say the same."""
    is_enclosed = licence.startswith("(") and licence.endswith(")") and licence.count("(") == 1
    words = normalise(licence.strip("()") if is_enclosed else licence)
    return CANONICAL.get(words.lower(), words)


def card(arguments: argparse.Namespace, manifest: dict) -> str:
    """The template with everything filled in; a missing figure is an error."""
    run = json.loads(needed(arguments.run / RUN, RUN_FIRST).read_text())
    shape, plan, taste, counts = Shape(**run["shape"]), run["plan"], run["taste"], run["counts"]
    evaluation = json.loads(arguments.evaluation.read_text())
    learned = [one for one in manifest["packages"] if not one["held_out"]]
    apart = [one["name"] for one in manifest["packages"] if one["held_out"]]
    sizes = ", ".join(f"{name} {one['train_bytes'] / 1e6:.3g} MB" for name, one in sorted(manifest["languages"].items()))
    fields = {
        "name": arguments.name, "family": "Qwen3" if shape.qk_norm else "Llama",
        "parameters": f"{parameter_count(shape):,}", "hidden": shape.hidden_size, "layers": shape.layer_count,
        "heads": shape.head_count, "head_dim": shape.head_dim, "kv_heads": shape.kv_head_count,
        "ffn": shape.intermediate_size, "vocabulary": f"{shape.vocab_size:,}", "theta": f"{shape.rope_theta:,.0f}",
        "context": f"{shape.context_tokens:,}", "packages": len(learned), "languages": sizes,
        "bytes_per_token": f"{counts['bytes'] / counts['tokens']:.2f}",
        "exact": manifest["duplicates"].get("exact", 0), "near": manifest["duplicates"].get("near", 0),
        "secrets": sum(manifest["secrets"].values()), "held_out": ", ".join(apart),
        "tokens": f"{run['state']['tokens'] / 1e6:.2f}", "row_tokens": taste["row_tokens"],
        "own_tokens": f"{counts['tokens'] / 1e6:.2f}", "steps": f"{run['state']['step']:,}",
        "step_tokens": f"{plan['rows_per_step'] * taste['row_tokens']:,}", "device": run["device"],
        "minutes": f"{run['state']['seconds'] / 60:.1f}",
        "start": f"from the weights of {Path(run['init']).name}" if run["init"] else "from random weights",
        "fim": round(100 * taste["fim_share"]),
        "suffix_first": round(100 * taste["suffix_first_share"]), "muon": plan["muon_rate"],
        "adam": plan["adam_rate"], "decay": round(100 * plan["decay_share"]), "seed": evaluation["seed"],
        "beside": Path(evaluation["models"][0]["folder"]).name, "table": table(evaluation), "picture": arguments.picture,
        "repository_share": round(100 * taste["repository_share"]), "items": evaluation["items"],
        "judged": f"{evaluation['bytes'] / 1e6:.2f} MB of {evaluation['documents']} files",
        "gains": "; ".join(
            f"{name} {one['points']:+.1f} [{one['from']:+.1f}, {one['to']:+.1f}]"
            for name, one in evaluation["differences"][-1]["line"].items()
        ),
        "data": DATA,
    }  # fmt: skip
    written = Template((HERE / "card.template").read_text()).substitute(fields)
    return wrapped(written) + "\n" + examples_text(evaluation["examples"])


def wrapped(text: str) -> str:
    """Paragraphs filled; headings, tables and pictures as they are."""
    parts = text.rstrip("\n").split("\n\n")
    return "\n\n".join(part if part[0] in "#|!" else textwrap.fill(part, 118, break_on_hyphens=False) for part in parts) + "\n"


if __name__ == "__main__":
    main()
