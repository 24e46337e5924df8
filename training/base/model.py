"""The transformer in plain PyTorch, under the tensor names of Hugging Face's Llama, so that export is a copy.

Pre-norm blocks: grouped-query attention with rotary positions (halves rotated, not pairs), SwiGLU, a head that is the
embedding. `Shape.qk_norm` makes it a Qwen3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .sizes import Shape

# Target that counts in no loss.
IGNORED = -100
INITIAL_DEVIATION = 0.02

Cache = list[tuple[Tensor, Tensor]]  # (batch, kv heads, tokens, head_dim) of each layer


class Norm(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


class Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        q_width, kv_width = shape.head_count * shape.head_dim, shape.kv_head_count * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden_size, q_width, bias=False)
        self.k_proj = nn.Linear(shape.hidden_size, kv_width, bias=False)
        self.v_proj = nn.Linear(shape.hidden_size, kv_width, bias=False)
        self.o_proj = nn.Linear(q_width, shape.hidden_size, bias=False)
        if shape.qk_norm:
            self.q_norm = Norm(shape.head_dim, shape.rms_norm_eps)
            self.k_norm = Norm(shape.head_dim, shape.rms_norm_eps)

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor], past: tuple[Tensor, Tensor] | None):
        batch, tokens, _ = x.shape
        q, k, v = (
            projection(x).view(batch, tokens, -1, self.shape.head_dim).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        if self.shape.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = rotate(q, *angles), rotate(k, *angles)
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        shared = self.shape.head_count // self.shape.kv_head_count
        wide_k, wide_v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
        # A single token sees all that came before it.
        mixed = F.scaled_dot_product_attention(q, wide_k, wide_v, is_causal=tokens > 1)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, tokens, -1)), (k, v)


class FeedForward(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = Norm(shape.hidden_size, shape.rms_norm_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = Norm(shape.hidden_size, shape.rms_norm_eps)
        self.mlp = FeedForward(shape)

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor], past: tuple[Tensor, Tensor] | None = None):
        mixed, present = self.self_attn(self.input_layernorm(x), angles, past)
        x = x + mixed
        return x + self.mlp(self.post_attention_layernorm(x)), present


class Body(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layer_count))
        self.norm = Norm(shape.hidden_size, shape.rms_norm_eps)


class Model(nn.Module):
    """`model.embed_tokens`, `model.layers.N`, `model.norm`: the names of the format."""

    def __init__(self, shape: Shape, seed: int = 0) -> None:
        super().__init__()
        self.shape = shape
        self.model = Body(shape)
        self.initialise(seed)
        cos, sin = angle_tables(shape)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def initialise(self, seed: int) -> None:
        """Normal weights; what writes to the residual stream is smaller the more layers write."""
        generator = torch.Generator().manual_seed(seed)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                is_writer = name.endswith(("o_proj.weight", "down_proj.weight"))
                scale = (2 * self.shape.layer_count) ** -0.5 if is_writer else 1.0
                nn.init.normal_(weight, std=INITIAL_DEVIATION * scale, generator=generator)

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        """Mean loss in nats over the targets that count."""
        logits = self.head(self.hidden(ids, 0, None)[0])
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED)

    def hidden(self, ids: Tensor, start: int, cache: Cache | None) -> tuple[Tensor, Cache]:
        """The stream after the last norm, (batch, tokens, hidden), and the cache with these tokens in it."""
        stop = start + ids.shape[1]
        x = self.model.embed_tokens(ids)
        angles = self.cos[start:stop], self.sin[start:stop]
        present: Cache = []
        for index, layer in enumerate(self.model.layers):
            x, pair = layer(x, angles, cache[index] if cache else None)
            present.append(pair)
        return self.model.norm(x), present

    def head(self, hidden: Tensor) -> Tensor:
        """Logits."""
        return F.linear(hidden, self.model.embed_tokens.weight)


def angle_tables(shape: Shape) -> tuple[Tensor, Tensor]:
    """Cosines and sines, (context, head_dim)."""
    exponents = torch.arange(0, shape.head_dim, 2, dtype=torch.float64) / shape.head_dim
    angles = torch.arange(shape.context_tokens, dtype=torch.float64)[:, None] * shape.rope_theta**-exponents
    both = torch.cat([angles, angles], -1)
    return both.cos().float(), both.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions of heads, (batch, heads, tokens, head_dim)."""
    first, second = x.chunk(2, -1)
    return x * cos.to(x.dtype) + torch.cat([-second, first], -1) * sin.to(x.dtype)
