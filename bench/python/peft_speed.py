#!/usr/bin/env python3
"""Speed of Python PEFT on a base model, as JSON lines to set beside our own figures.

    peft_speed.py [--base DIR] [--threads 2] [--work train,generate,generate-mixed] [--types f32,bf16]

train           one AdamW step of LoRA on all seven projections over 8 sequences of 512 tokens
generate        greedy decoding of one stream with one adapter
generate-mixed  greedy decoding of 16 streams on 16 different adapters in one batch

Needs the packages of crates/model/golden/requirements.txt. Each line has the median over --repeats measured runs after one that is not measured.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import peft
import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
RANK = 16
TRAIN_SEQUENCES, TRAIN_SEQUENCE_TOKENS = 8, 512
PROMPT_TOKENS, NEW_TOKENS = 64, 128
MIXED_STREAMS = 16


def lora_config() -> LoraConfig:
    return LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=PROJECTIONS, task_type="CAUSAL_LM")


def load_base(arguments: argparse.Namespace, kind: str) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(arguments.base, dtype=TYPES[kind], attn_implementation="sdpa")


def random_ids(model: torch.nn.Module, rows: int, count: int) -> torch.Tensor:
    return torch.randint(9, model.config.vocab_size, (rows, count), generator=torch.Generator().manual_seed(1))


def median_seconds(run: Callable[[], object], repeats: int) -> float:
    """Median wall time of `run` after one warm-up."""
    run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def measure_train(arguments: argparse.Namespace, kind: str) -> dict:
    """Forward, backward and optimiser step; adapter weights stay f32 as PEFT keeps them."""
    base = load_base(arguments, kind)
    model = get_peft_model(base, lora_config()).train()
    ids = random_ids(base, TRAIN_SEQUENCES, TRAIN_SEQUENCE_TOKENS)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)

    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind == "bf16"):
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    seconds = median_seconds(step, arguments.repeats)
    return {"tokens": ids.numel(), "sequences": TRAIN_SEQUENCES, "seconds": seconds}


def measure_generate(arguments: argparse.Namespace, kind: str, streams: int) -> dict:
    """Greedy decoding with the prompt's time included; one adapter for each stream."""
    base = load_base(arguments, kind)
    names = [f"adapter-{index}" for index in range(streams)]
    model = get_peft_model(base, lora_config(), adapter_name=names[0]).eval()
    for name in names[1:]:
        model.add_adapter(name, lora_config())
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # PEFT starts B at zero; a trained adapter is not
            parameter.data.normal_(std=0.02)
    ids = random_ids(base, streams, PROMPT_TOKENS)
    options = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "do_sample": False, "pad_token_id": 0}
    if streams > 1:
        options["adapter_names"] = names

    def run() -> None:
        with torch.no_grad():
            model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **options)

    seconds = median_seconds(run, arguments.repeats)
    return {"tokens": streams * NEW_TOKENS, "streams": streams, "prompt_tokens": PROMPT_TOKENS, "seconds": seconds}


WORK = {
    "train": measure_train,
    "generate": lambda arguments, kind: measure_generate(arguments, kind, 1),
    "generate-mixed": lambda arguments, kind: measure_generate(arguments, kind, MIXED_STREAMS),
}


def processor_name() -> str:
    """The processor's name, from Linux where there is one."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main() -> None:
    root = Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, default=root / "models" / "atelier-base")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", default=",".join(WORK))
    parser.add_argument("--types", default=",".join(TYPES))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    for work in arguments.work.split(","):
        for kind in arguments.types.split(","):
            result = WORK[work](arguments, kind)
            line = {
                "bench": f"peft/{work}",
                "base": arguments.base.name,
                "type": kind,
                "threads": arguments.threads,
                "rank": RANK,
                **result,
                "tokens_per_s": result["tokens"] / result["seconds"],
                "machine": processor_name(),
                "versions": {
                    "torch": torch.__version__,
                    "transformers": transformers.__version__,
                    "peft": peft.__version__,
                },
            }
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
