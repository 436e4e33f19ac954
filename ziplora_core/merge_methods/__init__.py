"""The ways to merge a pair without training. A new one is a function here and a line in METHODS."""

from __future__ import annotations

from .block_masks import block_masks
from .core_space import knots, ties, tsv
from .factor_average import factor_average
from .null_space import null_space
from .settings import Merged, MergeSettings, Method, kept_norm
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
}
__all__ = ["METHODS", "MergeSettings", "Merged", "Method", "kept_norm"]
