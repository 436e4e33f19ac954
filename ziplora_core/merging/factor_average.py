"""The average of the factors, for compatibility with files made in this way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..errors import problem
from ..lora.factors import LoraFactors
from ..lora.merged import MergedLoRA
from ..lora.pair import ModulePair
from .settings import Merged, MergeSettings, to_rank


def factor_average(sources: MergedLoRA, settings: MergeSettings) -> Merged:
    """Average the factors, as `lpl` in cloneofsimo/lora (cli_lora_add.py) does.

        delta = (a up_c + b up_s)(a down_c + b down_s),    a = w_c / (w_c + w_s),  b = 1 − a

    `lpl` does not divide by the sum of the weights: the two are equal only where it is 1. This is
    not a weighted sum: it contains the cross terms a b (up_c down_s + up_s down_c).

    Raises:
        ZipLoRAError: the weights sum to 0, or the modules or ranks of the LoRAs differ.
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
    merged, lines = to_rank(averaged, settings.rank)
    if abs(total - 1) > 1e-6:
        lines = [*lines, "weights divided by their sum, unlike cloneofsimo's lpl"]
    line = f"({a:.3g} up_c + {1 - a:.3g} up_s)({a:.3g} down_c + {1 - a:.3g} down_s), not the sum"
    return merged, [line, *lines]


def _average(pair: ModulePair, a: float) -> LoraFactors:
    content, style = (_folded(factors) for factors in pair.factors if factors)
    return LoraFactors(a * content.down + (1 - a) * style.down, a * content.up + (1 - a) * style.up)


def _folded(factors: LoraFactors) -> LoraFactors:
    """Fold the scale s into the factors: √|s| into each, the sign into up."""
    root = abs(factors.scale) ** 0.5
    return LoraFactors(root * factors.down, (root if factors.scale >= 0 else -root) * factors.up)


def _refuse_unlike(pairs: Mapping[str, ModulePair]) -> None:
    """Refuse LoRAs whose modules or ranks differ, as their factors cannot be averaged."""
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
