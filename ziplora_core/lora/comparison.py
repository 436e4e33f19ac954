"""The updates of two LoRAs compared before they are merged: size, angle, and none at all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ..errors import problem
from .factors import LoRA, LoraFactors
from .pair import LoRAPair, ModulePair
from .svd import inner_product

NEARLY = 0.9
"""|cosine| from which two LoRAs are called nearly the same: that of published pairs is near 0."""
DOMINANT = 2.0
"""Ratio of two norms from which the larger LoRA is said to dominate."""


@dataclass(frozen=True)
class Comparison:
    """The sizes of two updates, and the angle between them.

    Args:
        content, style: ‖delta‖_F over all modules of each LoRA.
        cosine: ⟨delta_c, delta_s⟩ / (‖delta_c‖ ‖delta_s‖) over the modules that both have; 0 where
            they have none.
    """

    content: float
    style: float
    cosine: float


def compare(pairs: Mapping[str, ModulePair]) -> Comparison:
    """Compare the two LoRAs of `pairs`; modules whose shapes differ count as not shared."""
    whole, shared, dot = [0.0, 0.0], [0.0, 0.0], 0.0
    for pair in pairs.values():
        squares = [max(_product(f, f), 0.0) if f else 0.0 for f in pair.factors]
        whole = [total + square for total, square in zip(whole, squares, strict=True)]
        if pair.content and pair.style and _same_shape(pair.content, pair.style):
            shared = [total + square for total, square in zip(shared, squares, strict=True)]
            dot += _product(pair.content, pair.style)
    norms = math.sqrt(shared[0]) * math.sqrt(shared[1])
    return Comparison(math.sqrt(whole[0]), math.sqrt(whole[1]), dot / norms if norms else 0.0)


def sameness_warnings(comparison: Comparison) -> list[str]:
    """Warn of two LoRAs that are one LoRA, whose merge has nothing to bring together."""
    cosine = comparison.cosine
    if abs(cosine) < NEARLY:
        return []
    advice = "Pick another file for one of them, unless you compare two saves of one training."
    if cosine < 0:
        return [
            f"one LoRA is the negative of the other, or nearly (cosine of their updates "
            f"{cosine:.4f}): their sum cancels both. {advice}"
        ]
    return [
        f"content and style are the same LoRA, or nearly (cosine of their updates {cosine:.4f}): "
        f"their sum is this LoRA at the sum of both strengths. {advice}"
    ]


def norm_lines(comparison: Comparison, pair: LoRAPair) -> list[str]:
    """Report both norms at the pair's strengths and, where one LoRA dominates, what balances them.

    Args:
        comparison: that of the pair, its strengths folded in.
        pair: the pair, for its strengths.
    """
    norms = {"content": comparison.content, "style": comparison.style}
    small, large = sorted(norms, key=lambda concept: norms[concept])
    if not norms[small]:
        return []
    ratio = norms[large] / norms[small]
    lines = [
        f"size of the updates at these strengths, ‖ΔW‖ in the UNet: content {norms['content']:.3g},"
        f" style {norms['style']:.3g}"
    ]
    if ratio > DOMINANT:
        strengths = {"content": pair.content_strength, "style": pair.style_strength}
        strengths[large] /= ratio
        lines.append(
            f"the {large} will dominate a plain sum: its update is {ratio:.1f} times the {small}'s."
            f" Of equal size they are at content_strength {strengths['content']:.2g}, "
            f"style_strength {strengths['style']:.2g}. Prefer the strengths at which each looks "
            "right alone, if you know them"
        )
    return lines


def has_update(factors: LoraFactors) -> bool:
    """Return whether an update is not zero: whether any rank has both of its halves."""
    halves = factors.down.flatten(1).any(1) & factors.up.flatten(1).any(0)
    return factors.scale != 0 and bool(halves.any())


def with_update(modules: Mapping[str, LoraFactors]) -> dict[str, LoraFactors]:
    """Leave out the modules whose update is zero."""
    return {name: factors for name, factors in modules.items() if has_update(factors)}


def refuse_no_update(lora: LoRA, concept: str) -> None:
    """Refuse a LoRA that changes nothing: a merge with it would only weaken the other one.

    Raises:
        ZipLoRAError: the update of every module is zero.
    """
    if lora.modules and not any(map(has_update, lora.modules.values())):
        raise problem(
            f"{lora.name} ({concept})",
            found=f"a LoRA that does nothing: the update of each of its {len(lora.modules)} "
            "modules is zero",
            expected="a trained LoRA that is switched on in some block",
            advice="Pick another save of it: this one was saved before its training, in a number "
            "format too small for it, or with alpha 0 everywhere.",
        )


def idle_unets(pair: LoRAPair) -> list[str]:
    """Warn of a LoRA of which only the text-encoder part does something."""
    return [
        f"{lora.name} ({concept}) does nothing in the UNet: the update of each of its "
        f"{len(lora.unet())} UNet modules is zero, and only its text-encoder part is left"
        for lora, concept in ((pair.content, "content"), (pair.style, "style"))
        if lora.unet() and not with_update(lora.unet())
    ]


def _product(left: LoraFactors, right: LoraFactors) -> float:
    """Compute the inner product in float32, unless its numbers are too large for that."""
    quick = inner_product(left, right, torch.float32)
    return quick if math.isfinite(quick) else inner_product(left, right)


def _same_shape(content: LoraFactors, style: LoraFactors) -> bool:
    sizes = ((len(f.up), f.down[0].numel()) for f in (content, style))
    return len(set(sizes)) == 1
