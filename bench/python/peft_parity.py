#!/usr/bin/env python3
"""Compares adapters between Atelier and Python PEFT on the same base.

    peft_parity.py logits  --base DIR [--adapter DIR] (--text FILE | --tokens FILE) [--positions 0,5,-1]
    peft_parity.py create  --base DIR --out DIR (--text FILE | --tokens FILE) [--rank 8] [--alpha 16] [--seed 0]
    peft_parity.py compare REFERENCE.json OTHER.json [--tolerance 0.001]
    peft_parity.py served  --base DIR --adapter DIR (--text FILE | --tokens FILE) --url URL [--model NAME]

`logits` runs the reference on an adapter folder (one that Atelier wrote, for example) and prints
one JSON object; `create` first makes an adapter of random weights with PEFT, saves it to --out and
writes the same object to --out/logits.json as well. `compare` says how far two such objects are
apart and ends with status 1 beyond the tolerance. `served` asks a running server, with the key in
ATELIER_KEY, for the log probability of every token of the text, and says how far the reference with
the same adapter is from it and how far the adapter itself moves them; it ends with status 1 if the
difference is on average more than a twentieth of that. The reference is computed in f32.

The object: {"tokens": [ids], "positions": [row indexes], "logits": [[vocabulary] per position],
"argmax": [id per token], "loss": mean next-token loss or null for a single token}.
Needs the packages of crates/model/golden/requirements.txt. A token file holds a JSON list of ids, or an object with such a list under "tokens".
"""

import argparse
import json
import os
import sys
import urllib.request
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LORA_B_STD = 0.02  # moves the logits clearly without drowning the base
COMPARE_TOLERANCE = 1e-3  # f32 against f32 on bf16 weights; logits are of the order of 10
# Mean difference of a log probability between the server, whose fastest tier rounds activations to bf16 and adapters to
# int8, and f32, as a share of what the adapter changes.
SERVED_TOLERANCE = 0.05


def read_tokens(arguments: argparse.Namespace) -> list[int]:
    """Token ids from a text file by the base's tokenizer, or from a JSON file as they are."""
    if arguments.tokens:
        body = json.loads(arguments.tokens.read_text())
        return body["tokens"] if isinstance(body, dict) else body
    tokenizer = Tokenizer.from_file(str(arguments.base / "tokenizer.json"))
    return tokenizer.encode(arguments.text.read_bytes().decode()).ids


def load_base(folder: Path) -> torch.nn.Module:
    """The base with its weights widened to f32."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


@torch.no_grad()
def logits_object(model: torch.nn.Module, tokens: list[int], positions: list[int]) -> dict:
    """What this script prints for one model and one text."""
    ids = torch.tensor(tokens)
    logits = model(input_ids=ids[None], use_cache=False).logits[0].float()
    rows = [position % len(tokens) for position in positions]
    loss = torch.nn.functional.cross_entropy(logits[:-1], ids[1:]).item() if len(tokens) > 1 else None
    return {
        "tokens": tokens,
        "positions": rows,
        "logits": [[float(f"{value:.8g}") for value in logits[row].tolist()] for row in rows],
        "argmax": logits.argmax(dim=1).tolist(),
        "loss": loss,
    }


def create_adapter(model: torch.nn.Module, arguments: argparse.Namespace) -> PeftModel:
    """A PEFT adapter with random, non-zero weights on all seven projections."""
    # PEFT writes this name into the adapter; a path of this machine means nothing elsewhere.
    model.name_or_path = arguments.base.name
    config = LoraConfig(
        r=arguments.rank,
        lora_alpha=arguments.alpha,
        use_rslora=arguments.rslora,
        target_modules=PROJECTIONS,
        task_type="CAUSAL_LM",
    )
    peft_model = get_peft_model(model, config).eval()
    random = torch.Generator().manual_seed(arguments.seed)
    for name, parameter in peft_model.named_parameters():
        if parameter.requires_grad:
            std = parameter.shape[1] ** -0.5 if "lora_A" in name else LORA_B_STD
            parameter.data = std * torch.randn(parameter.shape, generator=random)
    peft_model.save_pretrained(arguments.out)
    return peft_model


def run_logits(arguments: argparse.Namespace) -> None:
    model = load_base(arguments.base)
    if arguments.adapter:
        model = PeftModel.from_pretrained(model, arguments.adapter).eval()
    print(json.dumps(logits_object(model, read_tokens(arguments), arguments.positions)))


def run_create(arguments: argparse.Namespace) -> None:
    tokens = read_tokens(arguments)
    model = create_adapter(load_base(arguments.base), arguments)
    body = json.dumps(logits_object(model, tokens, arguments.positions))
    (arguments.out / "logits.json").write_text(body + "\n")
    print(body)


def run_compare(arguments: argparse.Namespace) -> None:
    reference, other = (json.loads(path.read_text()) for path in (arguments.reference, arguments.other))
    for key in ("tokens", "positions"):
        if reference[key] != other[key]:
            sys.exit(f"the two files have different {key}")
    left, right = (torch.tensor(body["logits"], dtype=torch.float64) for body in (reference, other))
    difference = (left - right).abs()
    log_left, log_right = left.log_softmax(dim=1), right.log_softmax(dim=1)
    worst = difference.max().item()
    report = {
        "positions": len(reference["positions"]),
        "logit_difference_max": worst,
        "logit_difference_mean": difference.mean().item(),
        "logit_rms": left.square().mean().sqrt().item(),
        "kl_max": (log_left.exp() * (log_left - log_right)).sum(dim=1).max().item(),
        "argmax_agree": (left.argmax(dim=1) == right.argmax(dim=1)).double().mean().item(),
        "tolerance": arguments.tolerance,
        # Written this way round so that a NaN is not within it.
        "within_tolerance": worst <= arguments.tolerance,
    }
    print(json.dumps(report))
    sys.exit(0 if report["within_tolerance"] else 1)


@torch.no_grad()
def token_logprobs(model: torch.nn.Module, tokens: list[int]) -> torch.Tensor:
    """Of each token but the first, given those before it."""
    ids = torch.tensor(tokens)
    logits = model(input_ids=ids[None], use_cache=False).logits[0].double()
    return logits[:-1].log_softmax(dim=1).gather(1, ids[1:, None])[:, 0]


def run_served(arguments: argparse.Namespace) -> None:
    tokens = read_tokens(arguments)
    ask = {"model": arguments.model, "prompt": tokens, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 0}
    request = urllib.request.Request(f"{arguments.url}/v1/completions", json.dumps(ask).encode())
    request.add_header("content-type", "application/json")
    request.add_header("authorization", f"Bearer {os.environ['ATELIER_KEY']}")
    with urllib.request.urlopen(request) as answer:
        served = json.load(answer)["choices"][0]["logprobs"]["token_logprobs"][1 : len(tokens)]
    base = load_base(arguments.base)
    alone = token_logprobs(base, tokens)
    adapted = token_logprobs(PeftModel.from_pretrained(base, arguments.adapter).eval(), tokens)
    difference = (torch.tensor(served, dtype=torch.float64) - adapted).abs()
    effect = (adapted - alone).abs().mean().item()
    report = {
        "tokens": len(tokens),
        "logprob_difference_max": difference.max().item(),
        "logprob_difference_mean": difference.mean().item(),
        "adapter_effect_mean": effect,
        "loss": {"peft": -adapted.mean().item(), "served": -sum(served) / len(served), "base": -alone.mean().item()},
        "within_tolerance": difference.mean().item() <= SERVED_TOLERANCE * effect,
    }
    print(json.dumps(report))
    sys.exit(0 if report["within_tolerance"] else 1)


def parse_positions(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    logits = commands.add_parser("logits")
    logits.add_argument("--adapter", type=Path)
    logits.set_defaults(run=run_logits)
    create = commands.add_parser("create")
    create.add_argument("--out", type=Path, required=True)
    create.add_argument("--rank", type=int, default=8)
    create.add_argument("--alpha", type=float, default=16)
    create.add_argument("--rslora", action="store_true")
    create.add_argument("--seed", type=int, default=0)
    create.set_defaults(run=run_create)
    served = commands.add_parser("served")
    served.add_argument("--adapter", type=Path, required=True)
    served.add_argument("--url", required=True)
    served.add_argument("--model", default="atelier")
    served.set_defaults(run=run_served)
    for command in (logits, create):
        command.add_argument("--positions", type=parse_positions, default=[-1])
    for command in (logits, create, served):
        command.add_argument("--base", type=Path, required=True)
        source = command.add_mutually_exclusive_group(required=True)
        source.add_argument("--text", type=Path)
        source.add_argument("--tokens", type=Path)
    compare = commands.add_parser("compare")
    compare.add_argument("reference", type=Path)
    compare.add_argument("other", type=Path)
    compare.add_argument("--tolerance", type=float, default=COMPARE_TOLERANCE)
    compare.set_defaults(run=run_compare)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
