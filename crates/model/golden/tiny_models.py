"""Tiny random models of each supported family, written in Hugging Face layout.

Weights depend only on the seed, the tensor's name and its shape, and are rounded to bfloat16
before they are written, so the reference and the code under test read the same numbers.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

SPECIAL_TOKENS = [
    "<|endoftext|>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
]
# A few merges, so that encoding is more than a table of bytes.
MERGES = [("Ġ", "Ġ"), ("ĠĠ", "ĠĠ"), ("d", "e"), ("de", "f"), ("Ġ", "="), ("e", "t"), ("et", "u"), ("r", "etu")]
SPLIT_EXPRESSION = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Family:
    """One tiny model and the adapter that goes with it."""

    name: str
    config: dict  # what config.json holds
    rank: int
    alpha: int
    rslora: bool = False
    adapter_dtype: torch.dtype = torch.float32  # PEFT writes bfloat16 adapters too
    ignored: tuple[int, ...] = ()  # positions whose target is ignored besides the sequence ends

    @property
    def head_dim(self) -> int:
        """Width of one attention head: `head_dim` where the config names it."""
        c = self.config
        return c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]


def _shared_config(**fields) -> dict:
    return {
        "bos_token_id": None,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_position_embeddings": 256,
        "use_cache": True,
        **fields,
    }


# Llama and Qwen2 have the config.json of transformers 4 (`rope_theta`, `torch_dtype`); Qwen3 has
# that of transformers 5 (`rope_parameters`, `layer_types`). Sizes are odd on purpose.
LLAMA = Family(
    name="llama",
    rank=4,
    alpha=8,
    config=_shared_config(
        architectures=["LlamaForCausalLM"],
        model_type="llama",
        vocab_size=280,
        hidden_size=48,
        intermediate_size=104,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        rms_norm_eps=1e-05,
        rope_theta=10000.0,
        rope_scaling=None,
        tie_word_embeddings=True,
        attention_bias=False,
        mlp_bias=False,
        eos_token_id=0,
        torch_dtype="bfloat16",
    ),
)
QWEN2 = Family(
    name="qwen2",
    rank=5,
    alpha=7,
    config=_shared_config(
        architectures=["Qwen2ForCausalLM"],
        model_type="qwen2",
        vocab_size=301,
        hidden_size=60,
        intermediate_size=104,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        rms_norm_eps=1e-06,
        rope_theta=1000000.0,
        tie_word_embeddings=True,
        use_sliding_window=False,
        sliding_window=64,
        max_window_layers=2,
        attention_dropout=0.0,
        eos_token_id=[0, 6],
        torch_dtype="bfloat16",
    ),
)
QWEN3 = Family(
    name="qwen3",
    rank=3,
    alpha=6,
    rslora=True,
    adapter_dtype=torch.bfloat16,
    ignored=(0, 11, 12, 40),
    config=_shared_config(
        architectures=["Qwen3ForCausalLM"],
        model_type="qwen3",
        vocab_size=272,
        hidden_size=48,
        intermediate_size=72,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        rms_norm_eps=1e-06,
        rope_parameters={"rope_theta": 500000.0, "rope_type": "default"},
        layer_types=["full_attention"] * 3,
        tie_word_embeddings=False,
        attention_bias=False,
        attention_dropout=0.0,
        use_sliding_window=False,
        sliding_window=None,
        max_window_layers=28,
        eos_token_id=0,
        pad_token_id=None,
        dtype="bfloat16",
        transformers_version="5.23.0",
    ),
)
FAMILIES = [LLAMA, QWEN2, QWEN3]


def generator(*parts: object) -> torch.Generator:
    """A random source that depends only on `parts`."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


def weight_shapes(family: Family) -> dict[str, tuple[int, ...]]:
    """Every tensor of the model under its Hugging Face name."""
    c = family.config
    hidden, ffn, head_dim = c["hidden_size"], c["intermediate_size"], family.head_dim
    q, kv = c["num_attention_heads"] * head_dim, c["num_key_value_heads"] * head_dim
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (c["vocab_size"], hidden)}
    for index in range(c["num_hidden_layers"]):
        layer = f"model.layers.{index}"
        shapes[f"{layer}.input_layernorm.weight"] = (hidden,)
        shapes[f"{layer}.post_attention_layernorm.weight"] = (hidden,)
        shapes[f"{layer}.self_attn.q_proj.weight"] = (q, hidden)
        shapes[f"{layer}.self_attn.k_proj.weight"] = (kv, hidden)
        shapes[f"{layer}.self_attn.v_proj.weight"] = (kv, hidden)
        shapes[f"{layer}.self_attn.o_proj.weight"] = (hidden, q)
        shapes[f"{layer}.mlp.gate_proj.weight"] = (ffn, hidden)
        shapes[f"{layer}.mlp.up_proj.weight"] = (ffn, hidden)
        shapes[f"{layer}.mlp.down_proj.weight"] = (hidden, ffn)
        if c["model_type"] == "qwen2":
            for name, width in (("q", q), ("k", kv), ("v", kv)):
                shapes[f"{layer}.self_attn.{name}_proj.bias"] = (width,)
        if c["model_type"] == "qwen3":
            shapes[f"{layer}.self_attn.q_norm.weight"] = (head_dim,)
            shapes[f"{layer}.self_attn.k_norm.weight"] = (head_dim,)
    shapes["model.norm.weight"] = (hidden,)
    if not c["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (c["vocab_size"], hidden)
    return shapes


def random_weight(family: Family, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """One tensor, large enough that attention is far from uniform and logits differ clearly."""
    noise = torch.randn(shape, generator=generator("weights", family.name, name))
    if name.endswith("norm.weight"):
        return (1.0 + 0.2 * noise).to(torch.bfloat16)
    if name.endswith(".bias"):
        return (0.3 * noise).to(torch.bfloat16)
    if name.startswith("model.embed_tokens"):
        return (0.2 * noise).to(torch.bfloat16)
    return (shape[1] ** -0.5 * noise).to(torch.bfloat16)


def tokenizer_json() -> str:
    """A minimal byte-level tokenizer: specials, the 256 bytes, a few merges."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}
    pieces = SPECIAL_TOKENS + [letters[byte] for byte in range(256)] + [a + b for a, b in MERGES]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": SPLIT_EXPRESSION}, "behavior": "Isolated", "invert": False}
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [{"id": i, "content": text, **flags} for i, text in enumerate(SPECIAL_TOKENS)],
            "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
            "post_processor": None,
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": {piece: index for index, piece in enumerate(pieces)},
                "merges": [list(pair) for pair in MERGES],
            },
        },
        ensure_ascii=False,
        separators=(",", ":"),
    )


def write_model(family: Family, folder: Path, shards: int = 1) -> None:
    """Writes config.json, tokenizer.json and the weights, in one file or in `shards`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(family.config, indent=2) + "\n")
    (folder / "tokenizer.json").write_text(tokenizer_json() + "\n")
    weights = {name: random_weight(family, name, shape) for name, shape in weight_shapes(family).items()}
    if shards == 1:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names, weight_map = list(weights), {}
    for shard in range(shards):
        file_name = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = names[shard * len(names) // shards : (shard + 1) * len(names) // shards]
        save_file({name: weights[name] for name in part}, folder / file_name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file_name)
    total_bytes = sum(weight.numel() * weight.element_size() for weight in weights.values())
    index = {"metadata": {"total_size": total_bytes}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
