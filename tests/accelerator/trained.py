"""What the tier's tests train, and how they look at it afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from card.runs import RUNS
from card.studio import Studio
from ziplora_core.trainable import Watch


def train(studio: Studio, name: str, memory: str, steps: int, folder: Path, **watch: Any) -> Any:
    """Train as ComfyUI runs nodes: in inference mode.

    Args:
        name: of one of `RUNS`.
        watch: what its `Watch` is made of.
    """
    with torch.inference_mode():
        return RUNS[name](studio, memory, steps, folder, Watch(**watch))


def learned(result: Any) -> dict[str, Tensor]:
    """Coefficients or factors by name."""
    if hasattr(result, "modules"):
        factors = result.modules
    elif hasattr(result, "content"):
        factors = {f"{part.name} {n}": f for part in (result.content, result.style)
                   for n, f in part.modules.items()}  # fmt: skip
    else:
        return dict(result.merged.coefficients)
    return {f"{n} {half}": getattr(f, half) for n, f in factors.items() for half in ("down", "up")}


def weights(studio: Studio) -> list[Tensor]:
    """Copy the weights of the studio's MODEL."""
    return [p.detach().cpu().clone() for p in studio.model.model.diffusion_model.parameters()]


def assert_untouched(studio: Studio, before: list[Tensor]) -> None:
    """The MODEL has the weights that it had, and nothing is left on it."""
    for parameter, old in zip(weights(studio), before, strict=True):
        assert torch.equal(parameter, old)
    modules = list(studio.model.model.diffusion_model.modules())
    assert not any(m._forward_hooks or "forward" in m.__dict__ for m in modules)
