"""Settings and result types of merge methods, and steps that several methods share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from ..lora.factors import LoraFactors
from ..lora.merged import MergedLoRA, truncated
from ..lora.pair import ModulePair, pair_modules, scaled
from ..lora.svd import inner_product
from .rank_moments import RankMoments
from .report import truncation_line

OnModule = Callable[[int, int], None]
"""Called with (modules done, total) before each module; may raise to cancel."""


@dataclass(frozen=True)
class MergeSettings:
    """The settings of all methods; each method uses those that it needs.

    Args:
        content_weight, style_weight: w_c and w_s; a LoRA with weight 0 is left out before the
            method runs.
        rank: 0 for the method's full rank, otherwise the rank of the closest LoRA.
        mu: strength of the style's protection in null_space, 0 … ∞.
        density: share of the largest entries that ties and knots keep, 0 … 1.
        blocks: content and style weight by block, for block_masks.
        moments: moments by UNet module, for CALIBRATED methods and for a lower rank.
        on_module: progress callback of slow methods.
    """

    content_weight: float = 1.0
    style_weight: float = 1.0
    rank: int = 0
    mu: float = 0.5
    density: float = 0.5
    blocks: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    moments: Mapping[str, RankMoments] = field(default_factory=dict)
    on_module: OnModule = lambda done, total: None


Merged = tuple[MergedLoRA, list[str]]
"""A merge, and its lines for the report."""
Method = Callable[[MergedLoRA, MergeSettings], Merged]
"""Merges the pairs, to which it applies the weights itself."""


def weighted(sources: MergedLoRA, settings: MergeSettings) -> MergedLoRA:
    """Multiply the updates by w_c and w_s, and drop modules whose update is zero.

    So a method ignores a LoRA of weight 0: null_space with w_s = 0 is the content LoRA.
    """

    def weigh(pairs: Mapping[str, ModulePair]) -> dict[str, ModulePair]:
        content = {name: pair.content for name, pair in pairs.items() if pair.content}
        style = {name: pair.style for name, pair in pairs.items() if pair.style}
        return pair_modules(
            _nonzero(scaled(content, settings.content_weight)),
            _nonzero(scaled(style, settings.style_weight)),
        )

    return replace(sources, pairs=weigh(sources.pairs), text_encoder=weigh(sources.text_encoder))


def shared_only(
    sources: MergedLoRA,
    merge: Callable[[LoraFactors, LoraFactors], ModulePair],
    on_module: OnModule,
) -> MergedLoRA:
    """Merge the UNet modules that both LoRAs have; other modules stay unchanged.

    Text encoders are joined exactly: ZipLoRA and its followers leave them frozen.
    """
    pairs = dict(sources.pairs)
    for done, (name, pair) in enumerate(sources.pairs.items()):
        on_module(done, len(pairs))
        if pair.content and pair.style:
            pairs[name] = merge(pair.content, pair.style)
    return replace(sources, pairs=pairs)


def to_rank(merged: MergedLoRA, rank: int) -> Merged:
    """Reduce a merge to `rank`, 0 for no reduction, and report the error."""
    if not rank:
        return merged, []
    reduced, error = truncated(merged, rank)
    return reduced, [truncation_line(rank, error, reduced is not merged)]


def _nonzero(modules: Mapping[str, LoraFactors]) -> dict[str, LoraFactors]:
    return {name: f for name, f in modules.items() if inner_product(f, f) > 0}
