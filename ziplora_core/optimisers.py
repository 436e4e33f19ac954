"""Optimisers and learning-rate schedules by name."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def learning_rate_factor(step: int, steps: int, schedule: str, warm_up: int) -> float:
    """Scale the learning rate at `step` of `steps`: warm-up from zero, then the schedule."""
    if step < warm_up:
        return (step + 1) / (warm_up + 1)
    progress = (step - warm_up) / max(1, steps - warm_up)
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    return 1 - progress if schedule == "linear" else 1.0


def make_optimiser(
    name: str, parameters: list[Tensor], learning_rate: float
) -> torch.optim.Optimizer:
    """Build an optimiser. Adam's eps is 1e-15: coefficient gradients can be as small as 1e-9."""
    if name == "adam":
        return torch.optim.Adam(parameters, lr=learning_rate, eps=1e-15)
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=learning_rate, eps=1e-15)
    return torch.optim.SGD(parameters, lr=learning_rate)
