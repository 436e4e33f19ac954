"""The ways to merge a pair without training. A new one is a function here and a line in METHODS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from .errors import problem
from .lora import LoraFactors
from .low_rank import approximate
from .merge import MergedLoRA, approximated, truncated
from .pairing import ModulePair, pair_modules, scaled
from .report import truncation_line


@dataclass(frozen=True)
class MergeSettings:
    """What a person asks of a merge; a method uses what it needs.

    Args:
        content_weight, style_weight: w_c and w_s.
        rank: 0 for all there is, otherwise the closest LoRA of this rank.
    """

    content_weight: float = 1.0
    style_weight: float = 1.0
    rank: int = 0


Merged = tuple[MergedLoRA, list[str]]
"""A merge, and lines for the report."""
Method = Callable[[MergedLoRA, MergeSettings], Merged]
"""Takes the pairs before any weights."""


def direct(sources: MergedLoRA, settings: MergeSettings) -> Merged:
    """Join exactly: delta = w_c delta_c + w_s delta_s (arXiv:2311.13600, eq. 1)."""
    return _to_rank(_weighted(sources, settings), settings.rank)


def svd(sources: MergedLoRA, settings: MergeSettings) -> Merged:
    """Write the same sum by its first `rank` singular directions, of which there are r_c + r_s."""
    rank = settings.rank
    merged, error = approximated(
        _weighted(sources, settings), lambda f: approximate(f, lambda s: rank or f.rank)
    )
    kept = f"the first {rank}" if rank else "all"
    return merged, [f"{kept} singular directions kept: relative error {error:.2%} of the sum"]


def factor_average(sources: MergedLoRA, settings: MergeSettings) -> Merged:
    """Average the factors, as `lpl` in cloneofsimo/lora (cli_lora_add.py) does.

        delta = (a up_c + b up_s)(a down_c + b down_s),    a = w_c / (w_c + w_s),  b = 1 − a

    It is no weighted sum: it has a b (up_c down_s + up_s down_c) in it too.

    Raises:
        ZipLoRAError: the weights sum to 0, or modules or ranks of the two differ.
    """
    total = settings.content_weight + settings.style_weight
    if abs(total) < 1e-6:
        raise problem(
            "content_weight and style_weight",
            found=f"{settings.content_weight:g} and {settings.style_weight:g}, which sum to 0",
            expected="weights whose sum the average can be divided by",
            advice="Change one of them, or use method=direct for a difference.",
        )
    _refuse_unlike({**sources.pairs, **sources.text_encoder})
    a = settings.content_weight / total

    def average(pairs: Mapping[str, ModulePair]) -> dict[str, ModulePair]:
        return {name: ModulePair(content=_average(pair, a)) for name, pair in pairs.items()}

    averaged = replace(
        sources,
        pairs=average(sources.pairs),
        text_encoder=average(sources.text_encoder),
        separable=False,
    )
    merged, lines = _to_rank(averaged, settings.rank)
    line = f"({a:.3g} up_c + {1 - a:.3g} up_s)({a:.3g} down_c + {1 - a:.3g} down_s), not the sum"
    return merged, [line, *lines]


METHODS: dict[str, Method] = {"direct": direct, "factor_average": factor_average, "svd": svd}


def _weighted(sources: MergedLoRA, settings: MergeSettings) -> MergedLoRA:
    """Multiply the updates by w_c and w_s."""

    def weigh(pairs: Mapping[str, ModulePair]) -> dict[str, ModulePair]:
        content = {name: pair.content for name, pair in pairs.items() if pair.content}
        style = {name: pair.style for name, pair in pairs.items() if pair.style}
        return pair_modules(
            scaled(content, settings.content_weight), scaled(style, settings.style_weight)
        )

    return replace(sources, pairs=weigh(sources.pairs), text_encoder=weigh(sources.text_encoder))


def _to_rank(merged: MergedLoRA, rank: int) -> Merged:
    if not rank:
        return merged, []
    reduced, error = truncated(merged, rank)
    return reduced, [truncation_line(rank, error, reduced is not merged)]


def _average(pair: ModulePair, a: float) -> LoraFactors:
    content, style = (_folded(factors) for factors in pair.factors if factors)
    return LoraFactors(a * content.down + (1 - a) * style.down, a * content.up + (1 - a) * style.up)


def _folded(factors: LoraFactors) -> LoraFactors:
    """Put the scale s into the factors, √|s| into each and its sign into up."""
    root = abs(factors.scale) ** 0.5
    return LoraFactors(root * factors.down, (root if factors.scale >= 0 else -root) * factors.up)


def _refuse_unlike(pairs: Mapping[str, ModulePair]) -> None:
    """Factors can be averaged where both LoRAs have them, in one rank."""
    unlike = {
        name: [str(f.rank) if f else "missing" for f in pair.factors]
        for name, pair in pairs.items()
        if not pair.shared or len({f.rank for f in pair.factors if f}) > 1
    }
    if unlike:
        first, (content, style) = next(iter(unlike.items()))
        raise problem(
            "method=factor_average",
            found=f"{len(unlike)} of {len(pairs)} modules that differ, e.g. {first}: rank "
            f"{content} (content) and {style} (style)",
            expected="the same modules and ranks in both LoRAs",
            advice="Use method=direct or svd, which join any two; or bring both LoRAs to one rank "
            "with Resize LoRA.",
        )
