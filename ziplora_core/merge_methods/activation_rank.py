"""A lower rank for any merge, by what its layers see instead of by its weights alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from ..lora import LoraFactors
from ..low_rank import Approximation, cut_by_activation, overall_error, truncate
from ..merge import MergedLoRA
from ..pairing import ModulePair
from ..rank_moments import RIDGE, RankMoments
from ..report import truncation_line
from .settings import Merged


def to_rank_by_activation(
    merged: MergedLoRA, rank: int, moments: Mapping[str, RankMoments]
) -> Merged:
    """Reduce a merge to `rank` so that its layers' outputs change least; see `cut_by_activation`.

    Text encoders, and modules that saw nothing, get the plain SVD.
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
        return result, ["no module could be reduced by what it sees: plain SVD"]
    return result, [
        f"reduced to rank {rank} by what {len(cut)} modules see: relative error "
        f"{overall_error(cut):.2%} of what they add there (plain SVD: {overall_error(plain):.2%})"
    ]


def _seen(known: RankMoments | None, factors: LoraFactors) -> Tensor | None:
    """E[u uᵀ] of the update's own down, None where nothing is known."""
    if known is None or not known.usable:
        return None
    seen = known.seen_by(factors)
    return seen if seen.trace() > 0 else None
