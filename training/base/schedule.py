"""Warm up, stay, fall: the learning rate as a share of its peak."""

from __future__ import annotations


def rate(step: int, warm_up_steps: int, progress: float, decay_share: float) -> float:
    """`progress` is how much of the run is over, 0 to 1: by steps, or by time where the run has a time."""
    if progress >= 1:
        return 0.0
    warm = min(1.0, (step + 1) / max(warm_up_steps, 1))
    fall = min(1.0, (1.0 - progress) / decay_share) if decay_share > 0 else 1.0
    return min(warm, fall)
