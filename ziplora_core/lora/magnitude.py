"""How large the numbers of an update are, without the dense update."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from .factors import LoraFactors

HUGE = 1.0
"""Root mean square of an update above which it drowns its weight: SDXL's are near 0.03."""
_CHUNK = 1 << 22
"""Elements of a dense update that are computed at once."""


def bound(factors: LoraFactors) -> float:
    """Compute a bound of max |delta|; NaN or infinity where a factor is.

    Σ_r |scale| max_o |up[o, r]| max_i |down[r, i]| ≥ max |delta|
    """
    up, down = factors.up.detach().flatten(1), factors.down.detach().flatten(1)
    columns, rows = (_largest(half, axis) for half, axis in ((up, 0), (down, 1)))
    return abs(factors.scale) * float((columns * rows).sum())


def exceeds(factors: LoraFactors, limit: float) -> bool:
    """Return whether max |delta| of finite factors is larger than `limit`.

    The elements themselves are computed only where the bound does not decide.
    """
    if not limit < bound(factors) < math.inf:
        return False
    up, down = factors.up.detach().flatten(1), factors.down.detach().flatten(1)
    step = max(1, _CHUNK // down.shape[1])
    down = down.double()
    parts = (factors.scale * part.double() @ down for part in up.split(step))
    return any(bool((part.abs() > limit).any()) for part in parts)


def huge_updates(modules: Mapping[str, LoraFactors]) -> list[str]:
    """Warn of finite updates that are far larger than any weight, and so drown the model.

    Args:
        modules: factors by module name, as they are applied.
    """
    found = {name: size for name, f in modules.items() if (size := _root_mean_square(f)) > HUGE}
    if not found:
        return []
    worst = max(found, key=lambda name: found[name])
    return [
        f"WARNING: the update of {len(found)} of {len(modules)} modules is far larger than the "
        f"weights it is added to ({worst}: {found[worst]:.2g} on average, SDXL's weights are near "
        "0.03): images will be noise. Lower the strength, or use another save of this LoRA"
    ]


def _largest(half: torch.Tensor, axis: int) -> torch.Tensor:
    """Return max |·| along an axis in float64, without a copy of the half."""
    return torch.maximum(half.amax(axis), -half.amin(axis)).double().cpu()


def _root_mean_square(factors: LoraFactors) -> float:
    """Compute ‖delta‖_F / √(out · in · k); where its bound by both norms is not huge, the bound."""
    up, down = factors.up.detach().flatten(1), factors.down.detach().flatten(1)
    norms = [float(torch.linalg.vector_norm(half, dtype=torch.float32)) for half in (up, down)]
    count = (up.shape[0] * down.shape[1]) ** 0.5
    most = abs(factors.scale) * norms[0] * norms[1] / count
    if most <= HUGE:
        return most
    up, down = up.cpu().double(), down.cpu().double()
    square = ((up.T @ up) * (down @ down.T)).sum().clamp_min(0)
    return abs(factors.scale) * float(square) ** 0.5 / count
