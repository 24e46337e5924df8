"""The sizes that the recipe trains, and how each is trained."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """What config.json says; crates/model/src/config.rs has the meanings."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layer_count: int
    head_count: int
    kv_head_count: int
    head_dim: int = 64
    context_tokens: int = 2048
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-6
    # Qwen3's norm on each head of q and k; without it the family is Llama.
    qk_norm: bool = False


@dataclass(frozen=True)
class Plan:
    """How a size is trained. Learning rates are peaks."""

    rows_per_step: int
    # Rows of one forward pass; gradients add up over a step.
    rows_per_pass: int
    steps: int
    # Matrices by Muon: it reaches a loss in well under the steps that AdamW needs at these sizes (both were tried for
    # the first base), and its work is small beside a step's. Embedding and norms by AdamW: Muon is for matrices.
    muon_rate: float = 0.02
    adam_rate: float = 0.006
    weight_decay: float = 0.01
    warm_up_steps: int = 50
    # Share of the run, at its end, in which the rate falls linearly to zero. That averages over the last steps by
    # itself, so no moving average of the weights is kept.
    decay_share: float = 0.4
    clip: float = 1.0


SHAPES = {
    # A rehearsal: minutes on one core.
    "tiny": Shape(2_048, 128, 384, 2, 2, 1, context_tokens=512),
    # What two cores train in a night.
    "cpu": Shape(16_384, 320, 896, 8, 5, 1),
    # 18.5 million parameters: what a quarter of an hour of one large GPU trains well, and learning an adapter on two cores takes
    # no more than half as long again as on the size above.
    "small": Shape(16_384, 384, 1_024, 8, 6, 1, qk_norm=True),
}
PLANS = {
    "tiny": Plan(rows_per_step=8, rows_per_pass=8, steps=200, warm_up_steps=10),
    "cpu": Plan(rows_per_step=8, rows_per_pass=8, steps=4_000),
    # 131,072 tokens a step at 2,048 a row.
    "small": Plan(rows_per_step=64, rows_per_pass=64, steps=4_000, warm_up_steps=100, muon_rate=0.025, adam_rate=0.006),
}


def parameter_count(shape: Shape) -> int:
    """Weights, the embedding once since it is the head too."""
    attention = shape.hidden_size * shape.head_dim * (2 * shape.head_count + 2 * shape.kv_head_count)
    norms = 2 * shape.hidden_size + (2 * shape.head_dim if shape.qk_norm else 0)
    layer = attention + 3 * shape.hidden_size * shape.intermediate_size + norms
    return shape.vocab_size * shape.hidden_size + shape.layer_count * layer + shape.hidden_size
