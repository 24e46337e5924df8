"""Model folders in Hugging Face's layout: read one, write one."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from .model import Model
from .paths import MODEL_FIRST, needed
from .sizes import Shape

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def shape_of(config: dict) -> Shape:
    """Shape of a config.json of a family that model.py computes."""
    if config["model_type"] not in ("llama", "qwen3") or not config.get("tie_word_embeddings"):
        raise SystemExit("only Llama and Qwen3 with tied embeddings can be read here")
    theta = (config.get("rope_parameters") or config).get("rope_theta", 10_000.0)
    return Shape(
        vocab_size=config["vocab_size"],
        hidden_size=config["hidden_size"],
        intermediate_size=config["intermediate_size"],
        layer_count=config["num_hidden_layers"],
        head_count=config["num_attention_heads"],
        kv_head_count=config["num_key_value_heads"],
        head_dim=config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"],
        context_tokens=config["max_position_embeddings"],
        rope_theta=theta,
        rms_norm_eps=config["rms_norm_eps"],
        qk_norm=config["model_type"] == "qwen3",
    )


def config_of(shape: Shape, end: int) -> dict:
    """The config.json of a shape."""
    family = "qwen3" if shape.qk_norm else "llama"
    return {
        "architectures": ["Qwen3ForCausalLM" if shape.qk_norm else "LlamaForCausalLM"],
        "model_type": family,
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.layer_count,
        "num_attention_heads": shape.head_count,
        "num_key_value_heads": shape.kv_head_count,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": shape.context_tokens,
        "rms_norm_eps": shape.rms_norm_eps,
        "rope_theta": shape.rope_theta,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": None,
        "eos_token_id": end,
        "torch_dtype": "bfloat16",
        "use_cache": True,
    }


def load(folder: Path) -> Model:
    """The model of a folder, in f32."""
    shape = shape_of(json.loads(needed(folder / "config.json", MODEL_FIRST).read_text()))
    weights = {}
    for path in sorted(folder.glob("*.safetensors")):
        weights |= load_file(path)
    weights.pop("lm_head.weight", None)
    model = Model(shape)
    model.load_state_dict({name: weight.float() for name, weight in weights.items()})
    return model


def save(model: Model, folder: Path, tokenizer: Path, end: int) -> int:
    """Writes a folder in bf16; gives its bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: weight.detach().to(torch.bfloat16).contiguous().cpu() for name, weight in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config_of(model.shape, end), indent=1) + "\n")
    for name in TOKENIZER_FILES:
        (folder / name).write_bytes((tokenizer / name).read_bytes())
    return sum(path.stat().st_size for path in folder.iterdir())
