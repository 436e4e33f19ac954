"""Merge methods without training. A new method is a function here and an entry in METHODS."""

from __future__ import annotations

from dataclasses import replace

from ..lora.merged import MergedLoRA
from .activation_rank import to_rank_by_activation
from .block_masks import block_masks
from .core_space import knots, ties, tsv
from .factor_average import factor_average
from .null_space import null_space
from .rank_space import rank_space
from .settings import Merged, MergeSettings, Method, weighted
from .sums import direct, norm_balance, norm_cap, svd

METHODS: dict[str, Method] = {
    "direct": direct,
    "factor_average": factor_average,
    "svd": svd,
    "null_space": null_space,
    "norm_balance": norm_balance,
    "norm_cap": norm_cap,
    "block_masks": block_masks,
    "ties": ties,
    "knots": knots,
    "tsv": tsv,
    "rank_space": rank_space,
}
CALIBRATED = frozenset({"rank_space"})
"""Methods that need the activations of calibration samples."""
__all__ = ["CALIBRATED", "METHODS", "MergeSettings", "Merged", "Method", "merge", "weighted"]


def merge(method: str, sources: MergedLoRA, settings: MergeSettings) -> Merged:
    """Merge by a method; if there are moments, they decide what a lower rank keeps."""
    if not (settings.rank and settings.moments):
        return METHODS[method](sources, settings)
    merged, lines = METHODS[method](sources, replace(settings, rank=0))
    reduced, said = to_rank_by_activation(merged, settings.rank, settings.moments)
    return reduced, [*lines, *said]
