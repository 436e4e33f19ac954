"""Helpers of the tier's tests: training, its result, and the MODEL's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from card.models import CardModels
from card.runs import RUNS
from ziplora_core.training.interface import ProgressCallbacks


def train(
    models: CardModels, name: str, memory: str, steps: int, folder: Path, **callbacks: Any
) -> Any:
    """Train in inference mode, as ComfyUI runs nodes.

    Args:
        name: name of one of `RUNS`.
        callbacks: fields of `ProgressCallbacks`.
    """
    with torch.inference_mode():
        return RUNS[name](models, memory, steps, folder, ProgressCallbacks(**callbacks))


def learned(result: Any) -> dict[str, Tensor]:
    """Return coefficients or factors by name."""
    if hasattr(result, "modules"):
        factors = result.modules
    elif hasattr(result, "content"):
        factors = {f"{part.name} {n}": f for part in (result.content, result.style)
                   for n, f in part.modules.items()}  # fmt: skip
    else:
        return dict(result.merged.coefficients)
    return {f"{n} {half}": getattr(f, half) for n, f in factors.items() for half in ("down", "up")}


def relative(got: dict[str, Tensor], want: dict[str, Tensor]) -> float:
    """Return the norm of the difference, relative to that of `want`, over all tensors.

    It is not compared element by element: of a tiny gradient, Adam's step keeps only the sign.
    """
    assert got.keys() == want.keys() and len(want) >= 80
    difference = sum(float((got[key] - want[key]).square().sum()) for key in want)
    return (difference / sum(float(w.square().sum()) for w in want.values())) ** 0.5


def weights(models: CardModels) -> list[Tensor]:
    """Copy the weights of the MODEL."""
    return [p.detach().cpu().clone() for p in models.model.model.diffusion_model.parameters()]


def assert_untouched(models: CardModels, before: list[Tensor]) -> None:
    """Assert that the MODEL's weights are unchanged and that nothing is left on it."""
    for parameter, old in zip(weights(models), before, strict=True):
        assert torch.equal(parameter, old)
    modules = list(models.model.model.diffusion_model.modules())
    assert not any(m._forward_hooks or "forward" in m.__dict__ for m in modules)
