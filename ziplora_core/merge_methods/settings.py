"""What a person asks of a merge, and what a method gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from ..lora import LoraFactors
from ..low_rank import inner_product
from ..merge import MergedLoRA, truncated
from ..pairing import ModulePair, pair_modules, scaled
from ..rank_moments import RankMoments
from ..report import truncation_line

OnModule = Callable[[int, int], None]
"""Told before each module how many of how many are done; may raise to cancel."""


@dataclass(frozen=True)
class MergeSettings:
    """A method uses what it needs of these.

    Args:
        content_weight, style_weight: w_c and w_s; where one is 0, its LoRA is left out before the
            method runs.
        rank: 0 for all there is, otherwise the closest LoRA of this rank.
        mu: how strongly null_space protects the style, 0 … ∞.
        density: the share of the largest entries that ties and knots keep, 0 … 1.
        blocks: content and style weight by block, for block_masks.
        moments: what UNet modules saw, by module, for CALIBRATED methods and for the rank.
        on_module: who follows a method that takes its time.
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
"""A merge, and lines for the report."""
Method = Callable[[MergedLoRA, MergeSettings], Merged]
"""Takes the pairs before any weights."""


def weighted(sources: MergedLoRA, settings: MergeSettings) -> MergedLoRA:
    """Multiply the updates by w_c and w_s; what is zero then is left out, module by module.

    So a method never spends anything on a LoRA that is not there: null_space with w_s = 0 is the
    content LoRA.
    """

    def weigh(pairs: Mapping[str, ModulePair]) -> dict[str, ModulePair]:
        content = {name: pair.content for name, pair in pairs.items() if pair.content}
        style = {name: pair.style for name, pair in pairs.items() if pair.style}
        return pair_modules(
            _living(scaled(content, settings.content_weight)),
            _living(scaled(style, settings.style_weight)),
        )

    return replace(sources, pairs=weigh(sources.pairs), text_encoder=weigh(sources.text_encoder))


def shared_only(
    sources: MergedLoRA,
    merge: Callable[[LoraFactors, LoraFactors], ModulePair],
    on_module: OnModule,
) -> MergedLoRA:
    """Merge the UNet modules that both LoRAs have; the others stay as they are.

    Text encoders are joined exactly: ZipLoRA and its followers leave them frozen.
    """
    pairs = dict(sources.pairs)
    for done, (name, pair) in enumerate(sources.pairs.items()):
        on_module(done, len(pairs))
        if pair.content and pair.style:
            pairs[name] = merge(pair.content, pair.style)
    return replace(sources, pairs=pairs)


def to_rank(merged: MergedLoRA, rank: int) -> Merged:
    """Reduce a merge to `rank`, 0 for not at all, and say what that has cost."""
    if not rank:
        return merged, []
    reduced, error = truncated(merged, rank)
    return reduced, [truncation_line(rank, error, reduced is not merged)]


def _living(modules: Mapping[str, LoraFactors]) -> dict[str, LoraFactors]:
    return {name: f for name, f in modules.items() if inner_product(f, f) > 0}
