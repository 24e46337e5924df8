#!/usr/bin/env python3
"""Writes the golden files of the model crate from PyTorch, transformers and PEFT.

    make.py models       tiny models, adapters, logits, losses and gradients
    make.py atelier-base logits of the shipped base model
    make.py tokenizer    token ids of tokenizer/lines.txt (kept as it is)
    make.py lines        tokenizer/lines.txt itself, then its ids
    make.py all          models, atelier-base and tokenizer

Everything follows from fixed seeds; README.md says what the files hold.
"""

import json
import os
import shutil
import sys
from pathlib import Path

# PEFT writes a set into adapter_config.json: its order must not change between runs.
if os.environ.get("PYTHONHASHSEED") != "0":
    os.environ["PYTHONHASHSEED"] = "0"
    os.execv(sys.executable, [sys.executable, *sys.argv])
os.environ["HF_HUB_OFFLINE"] = "1"

sys.dont_write_bytecode = True

import tokenizers
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from tiny_models import FAMILIES, LLAMA, Family, generator, write_model
from tokenizer_lines import TEXTS, collect_lines
from transformers import AutoModelForCausalLM

GOLDEN = Path(__file__).resolve().parent
BASE = GOLDEN.parents[2] / "models" / "atelier-base"
SEQUENCE_TOKENS = (37, 20)  # packed lengths; neither is a multiple of the cache block of 16
SHARDS = 2
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
IGNORED = -1  # target of a position that counts in no loss

BASE_SNIPPET = '''def merge_intervals(intervals: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join the intervals that overlap."""
    merged = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end,'''
BASE_POSITIONS_OTHER = (0, 1, 5, 15, 16, 31, 33, 50)
BASE_SAMPLE_STRIDE = 16  # every 16th vocabulary entry is kept at the other positions


def load_model(folder: Path) -> torch.nn.Module:
    """The reference model: bf16 weights widened to f32, eager attention."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


def packed_logits(model: torch.nn.Module, sequences: list[torch.Tensor]) -> torch.Tensor:
    """Logits of each sequence run by itself, rows packed: (tokens, vocab)."""
    return torch.cat([model(input_ids=ids[None], use_cache=False).logits[0] for ids in sequences])


def next_token_targets(sequences: list[torch.Tensor], ignored: tuple[int, ...]) -> torch.Tensor:
    """The next token of each position; IGNORED at sequence ends and at `ignored`: (tokens)."""
    targets = torch.cat([torch.cat([ids[1:], torch.tensor([IGNORED])]) for ids in sequences])
    targets[list(ignored)] = IGNORED
    return targets


def token_losses(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross entropy of each row, 0 where the target is ignored: (tokens)."""
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none", ignore_index=IGNORED)


def mean_loss(losses: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean over the counted tokens of all sequences."""
    return losses.sum() / (targets != IGNORED).sum()


def random_adapter(model: torch.nn.Module, family: Family) -> PeftModel:
    """A PEFT model with random, non-zero A and B on all seven projections."""
    model.name_or_path = f"golden/{family.name}"
    config = LoraConfig(
        r=family.rank,
        lora_alpha=family.alpha,
        use_rslora=family.rslora,
        lora_dropout=0.0,
        bias="none",
        target_modules=PROJECTIONS,
        task_type="CAUSAL_LM",
    )
    peft_model = get_peft_model(model, config).eval()
    for name, parameter in peft_model.named_parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator("adapter", family.name, name))
            values = noise * (parameter.shape[1] ** -0.5 if "lora_A" in name else 0.05)
            parameter.data = values.to(family.adapter_dtype).float()
    return peft_model


def save_adapter(peft_model: PeftModel, folder: Path, dtype: torch.dtype) -> None:
    """Lets PEFT write the adapter, its tensors held as `dtype` while it does."""
    trainable = [parameter for parameter in peft_model.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.data = parameter.data.to(dtype)
    shutil.rmtree(folder, ignore_errors=True)
    peft_model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    for parameter in trainable:
        parameter.data = parameter.data.float()


def adapter_gradients(peft_model: PeftModel) -> dict[str, torch.Tensor]:
    """Gradients under the names of PEFT's state dict."""
    return {
        name.replace(".default.", "."): parameter.grad.clone()
        for name, parameter in peft_model.named_parameters()
        if parameter.requires_grad
    }


def make_family(family: Family) -> None:
    """Model, adapter and golden.safetensors of one family."""
    folder = GOLDEN / family.name
    write_model(family, folder)
    model = load_model(folder)
    vocab = family.config["vocab_size"]
    sequences = [
        torch.randint(0, vocab, (count,), generator=generator("tokens", family.name, index))
        for index, count in enumerate(SEQUENCE_TOKENS)
    ]
    targets = next_token_targets(sequences, family.ignored)
    with torch.no_grad():
        logits = packed_logits(model, sequences)
        base_losses = token_losses(logits, targets)
    peft_model = random_adapter(model, family)
    save_adapter(peft_model, folder / "adapter", family.adapter_dtype)
    adapter_logits = packed_logits(peft_model, sequences)
    losses = token_losses(adapter_logits, targets)
    loss = mean_loss(losses, targets)
    loss.backward()
    gradients = adapter_gradients(peft_model)
    check_family(family, folder, sequences, adapter_logits.detach(), gradients)
    golden = {
        "tokens": torch.cat(sequences).to(torch.int32),
        "targets": targets.to(torch.int32),
        "sequence_tokens": torch.tensor(SEQUENCE_TOKENS, dtype=torch.int32),
        "base.logits": logits,
        "base.losses": base_losses,
        "base.loss": mean_loss(base_losses, targets).reshape(1),
        "adapter.logits": adapter_logits.detach(),
        "adapter.losses": losses.detach(),
        "adapter.loss": loss.detach().reshape(1),
        **{f"gradient.{name}": gradient for name, gradient in gradients.items()},
    }
    save_file(golden, folder / "golden.safetensors")
    shift = (adapter_logits - logits).abs().max().item()
    print(f"{family.name}: loss {base_losses.sum():.3f}/{losses.sum():.3f}, logits moved by up to {shift:.3f}")


def check_family(
    family: Family,
    folder: Path,
    sequences: list[torch.Tensor],
    adapter_logits: torch.Tensor,
    gradients: dict[str, torch.Tensor],
) -> None:
    """What was written reads back to the same numbers, and no gradient is missing or zero."""
    reloaded = PeftModel.from_pretrained(load_model(folder), folder / "adapter").eval()
    with torch.no_grad():
        assert torch.equal(packed_logits(reloaded, sequences), adapter_logits)
    assert len(gradients) == 2 * len(PROJECTIONS) * family.config["num_hidden_layers"]
    assert all(gradient.abs().max() > 1e-4 for gradient in gradients.values())
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.get_vocab_size() <= family.config["vocab_size"]
    text = "def f(x):\n\treturn é<|fim_middle|>"
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def make_models() -> None:
    """All tiny models, and the Llama one once more in shards."""
    for family in FAMILIES:
        make_family(family)
    sharded = GOLDEN / "llama-sharded"
    write_model(LLAMA, sharded, shards=SHARDS)
    ids = torch.arange(20)
    with torch.no_grad():
        logits = [packed_logits(load_model(folder), [ids]) for folder in (sharded, GOLDEN / "llama")]
    assert torch.equal(*logits)


def make_atelier_base() -> None:
    """Logits and losses of the shipped base on a snippet of Python."""
    tokenizer = tokenizers.Tokenizer.from_file(str(BASE / "tokenizer.json"))
    ids = torch.tensor(tokenizer.encode(BASE_SNIPPET).ids)
    assert 60 <= len(ids) <= 110, len(ids)
    targets = next_token_targets([ids], ())
    with torch.no_grad():
        logits = packed_logits(load_model(BASE), [ids])
    others = torch.tensor(BASE_POSITIONS_OTHER)
    sample_ids = torch.arange(0, logits.shape[1], BASE_SAMPLE_STRIDE)
    golden = {
        "tokens": ids.to(torch.int32),
        "targets": targets.to(torch.int32),
        "losses": token_losses(logits, targets),
        "argmax": logits.argmax(dim=1).to(torch.int32),
        "log_sum_exp": logits.logsumexp(dim=1),
        "last.logits": logits[-1].clone(),
        "other.positions": others.to(torch.int32),
        "other.ids": sample_ids.to(torch.int32),
        "other.logits": logits[others][:, sample_ids].clone(),
    }
    save_file(golden, GOLDEN / "atelier-base.safetensors")
    print(f"atelier-base: {len(ids)} tokens, mean loss {mean_loss(golden['losses'], targets):.3f}")


def make_tokenizer(rewrite_lines: bool) -> None:
    """Ids of every line, and plain ids where text that looks special makes a difference."""
    lines_path = GOLDEN / "tokenizer" / "lines.txt"
    if rewrite_lines:
        lines_path.write_bytes("".join(line + "\n" for line in collect_lines(GOLDEN / "tokenizer")).encode())
    lines = lines_path.read_bytes().decode().split("\n")[:-1]
    tokenizer = tokenizers.Tokenizer.from_file(str(BASE / "tokenizer.json"))
    texts = lines + TEXTS
    recognised = [tokenizer.encode(text).ids for text in texts]
    assert all(tokenizer.decode(i, skip_special_tokens=False) == t for i, t in zip(recognised, texts, strict=True))
    tokenizer.encode_special_tokens = True
    plain = [tokenizer.encode(text).ids for text in texts]
    differing = [index for index in range(len(lines)) if plain[index] != recognised[index]]
    golden = {
        "lines": recognised[: len(lines)],
        "plain": [{"line": index, "ids": plain[index]} for index in differing],
        "texts": [
            {"text": text, "ids": recognised[index], "plain": plain[index]}
            for index, text in enumerate(TEXTS, start=len(lines))
        ],
    }
    body = json.dumps(golden, ensure_ascii=True, separators=(",", ":")).replace("],[", "],\n[").replace("},{", "},\n{")
    (GOLDEN / "tokenizer" / "ids.json").write_text(body + "\n")
    print(f"tokenizer: {len(lines)} lines, {len(differing)} with another plain form, {len(TEXTS)} texts")


def main() -> None:
    torch.set_num_threads(1)  # the order of additions must not depend on the machine's cores
    torch.use_deterministic_algorithms(True)
    what = sys.argv[1] if len(sys.argv) == 2 else ""
    jobs = {
        "models": [make_models],
        "atelier-base": [make_atelier_base],
        "tokenizer": [lambda: make_tokenizer(rewrite_lines=False)],
        "lines": [lambda: make_tokenizer(rewrite_lines=True)],
    }
    jobs["all"] = jobs["models"] + jobs["atelier-base"] + jobs["tokenizer"]
    if what not in jobs:
        sys.exit(__doc__)
    for job in jobs[what]:
        job()


if __name__ == "__main__":
    main()
