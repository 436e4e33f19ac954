"""Rank reduction of any merge by its layers' activations, not by its weights alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from ..lora.factors import LoraFactors
from ..lora.merged import MergedLoRA
from ..lora.pair import ModulePair
from ..lora.svd import Approximation, cut_by_activation, overall_error, truncate
from .rank_moments import RIDGE, RankMoments
from .report import truncation_line
from .settings import Merged


def to_rank_by_activation(
    merged: MergedLoRA, rank: int, moments: Mapping[str, RankMoments]
) -> Merged:
    """Reduce a merge to `rank` so that its layers' outputs change least; see `cut_by_activation`.

    Text encoders, and modules without usable activations, get the plain SVD.
    """
    modules = merged.modules()
    if all(factors.rank <= rank for factors in modules.values()):
        return merged, [truncation_line(rank, 0.0, False)]
    cut: list[Approximation] = []
    plain: list[Approximation] = []

    def reduced(name: str, factors: LoraFactors) -> LoraFactors:
        seen = _seen(moments.get(name), factors)
        if seen is None or factors.rank <= rank:
            return truncate(factors, rank).factors
        part, lost = cut_by_activation(factors, rank, seen, RIDGE)
        cut.append(part)
        plain.append(replace(part, lost=lost))
        return part.factors

    pairs = {name: ModulePair(content=reduced(name, f)) for name, f in modules.items()}
    result = MergedLoRA(
        pairs={name: pairs[name] for name in merged.pairs if name in pairs},
        text_encoder={name: pairs[name] for name in merged.text_encoder if name in pairs},
        metadata=merged.metadata,
        separable=False,
    )
    if not cut:
        return result, ["no module could be reduced by its activations: plain SVD"]
    return result, [
        f"reduced to rank {rank} by the activations of {len(cut)} modules: relative error "
        f"{overall_error(cut):.2%} of the update's outputs (plain SVD: {overall_error(plain):.2%})"
    ]


def _seen(known: RankMoments | None, factors: LoraFactors) -> Tensor | None:
    """Return E[u uᵀ] for the update's own down, None without usable activations."""
    if known is None or not known.usable:
        return None
    seen = known.seen_by(factors)
    return seen if seen.trace() > 0 else None
