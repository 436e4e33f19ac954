"""NP-LoRA: the content update is reduced in the style's row space (arXiv:2511.11051)."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from ..lora.factors import LoraFactors
from ..lora.merged import MergedLoRA
from ..lora.pair import ModulePair
from ..lora.svd import drop_null, svd_of_factors
from .settings import Merged, MergeSettings, shared_only, to_rank, weighted


def null_space(sources: MergedLoRA, settings: MergeSettings) -> Merged:
    """Project the content softly onto the null space of the style (NP-LoRA, arXiv:2511.11051, v3).

        delta = w_s delta_s + w_c delta_c (I − g V_s V_sᵀ),    g = µ / (1 + µ)

    V_s `(in·k, k)` are the right singular vectors of delta_s. The second term, without w_c, solves
    min_X ‖X − delta_c‖² + µ ‖X V_s‖². On factors: down_c' = down_c − g (down_c V_s) V_sᵀ. The merge
    is an exact LoRA of rank r_c + r_s and stays separable.
    """
    g = settings.mu / (1 + settings.mu)
    overlaps: list[tuple[float, float]] = []

    def protect(content: LoraFactors, style: LoraFactors) -> ModulePair:
        directions = row_space(style)  # (k, in·k)
        overlaps.append((overlap(content, directions), len(directions) / directions.shape[1]))
        down = content.down.flatten(1).double()
        down = down - g * (down @ directions.T) @ directions
        return ModulePair(replace(content, down=down.float().view_as(content.down)), style)

    merged, lines = to_rank(
        shared_only(weighted(sources, settings), protect, settings.on_module), settings.rank
    )
    if overlaps:
        found, chance = (sum(values) / len(values) for values in zip(*overlaps, strict=True))
        lines = [
            f"{found:.1%} of the content's energy lay in the style's row space (unrelated LoRAs: "
            f"{chance:.1%}); this part of its update is scaled to {1 - g:.0%}",
            *lines,
        ]
    return merged, lines


def row_space(factors: LoraFactors) -> Tensor:
    """Compute the orthonormal right singular vectors of an update, `(k, in·k)`, float64."""
    return drop_null(*svd_of_factors(factors))[2]


def overlap(factors: LoraFactors, directions: Tensor) -> float:
    """Compute ‖delta V‖² / ‖delta‖² for orthonormal rows Vᵀ `(k, in·k)`."""
    up, down = factors.up.flatten(1).double(), factors.down.flatten(1).double()
    gram = up.T @ up

    def energy(rows: Tensor) -> float:
        return float((gram * (rows @ rows.T)).sum())

    return energy(down @ directions.T) / energy(down)
