"""The report of ZipLoRA Optimize: warnings, coefficients and retention."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..lora.coefficients import CONTENT, STYLE
from ..lora.comparison import compare, sameness_warnings
from ..lora.merged import MergedLoRA, layer_cosine
from ..lora.norms import kept_norm_lines
from ..lora.pair import LoRAPair
from ..lora.svd import inner_product
from ..training.interface import TrainingRecord
from ..training.report import compose, loss_line, steps_line
from .options import ZipLoRASettings

MIN_CHANGE = 0.02
"""Largest |m − 1| that counts as nothing learned."""


MIN_MEAN = 0.3
"""Mean |m| below which a LoRA is nearly switched off."""


MAX_COEFFICIENT = 3.0
"""Largest |m| that passes without a warning: the measured merges have at most 2.4."""


MAX_RETENTION_RATIO = 1.05
"""Ratio of a retention error to the direct merge's above which the report warns."""


_NO_JOINT_PROMPT = (
    "joint_conditioning is open, so nothing was matched where both LoRAs act together: in our "
    "miniature, such merges draw worse joint images than the plain sum. Connect the prompt that "
    "you will generate images with"
)


@dataclass(frozen=True)
class Retention:
    """The MSE between merged and single-LoRA predictions on held-out samples, by concept.

    Args:
        content, style: the MSE against that LoRA alone, at its own prompt.
        joint: the MSE against both LoRAs together, at the joint prompt; None without one.
    """

    content: float
    style: float
    joint: float | None = None

    @property
    def total(self) -> float:
        return self.content + self.style


def coefficient_warnings(
    coefficients: Mapping[str, Tensor], settings: ZipLoRASettings
) -> list[str]:
    """Warn of coefficients that did not move, went far, or collapsed."""
    flat, stepped = _flat(coefficients), settings.gradient_steps > 0
    warnings = []
    if (moved := float((flat - 1).abs().max())) <= MIN_CHANGE:
        advice = f"Raise learning_rate ({settings.learning_rate:g}; the paper's is 0.01) or steps."
        warnings.append(
            f"nothing was learned: no coefficient moved by more than {moved:.4f}, so this is the "
            f"direct merge. {advice if stepped else 'The two LoRAs hardly interact.'}"
        )
    if (largest := float(flat.abs().max())) > MAX_COEFFICIENT:
        warnings.append(
            f"coefficients reach {largest:.1f}: such a merge fits the images it was learned on and "
            "can fail on other prompts. Lower steps or learning_rate, or use solver=closed_form."
        )
    advice = "Use similarity=cosine, or lower similarity_weight or steps."
    for row, concept in ((CONTENT, "content"), (STYLE, "style")):
        if (mean := float(flat[row].abs().mean())) < MIN_MEAN:
            warnings.append(
                f"the {concept} coefficients collapsed to a mean of {mean:.2f}: the {concept} is "
                f"barely visible. {advice if stepped else 'Connect joint_conditioning.'}"
            )
    return warnings


def retention_warnings(before: Retention, after: Retention, settings: ZipLoRASettings) -> list[str]:
    """Warn of a concept that is preserved worse than in the direct merge, or not finite."""
    if not (math.isfinite(before.total) and math.isfinite(after.total)):
        return [
            "the predictions are not finite, so this merge cannot be measured: try each LoRA "
            "alone, and lower the pair's strengths"
        ]
    advice = "Bring the pair's strengths closer together, or lower joint_weight."
    if settings.gradient_steps:
        weaker = "similarity_weight" if settings.similarity_weight > 0.001 else "joint_weight"
        advice = f"Set solver=closed_form, or lower {weaker}."
    return [
        f"the {name} is preserved worse than in the direct merge (× {new / old:.2f}). {advice}"
        for name, old, new in (
            ("content", before.content, after.content),
            ("style", before.style, after.style),
        )
        if old > 0 and new > MAX_RETENTION_RATIO * old
    ]


def ziplora_report(
    merged: MergedLoRA,
    pair: LoRAPair,
    record: TrainingRecord,
    settings: ZipLoRASettings,
    retention: tuple[Retention, Retention] | None,
    notes: list[str],
    joint_prompt: bool = True,
) -> str:
    """Compose ZipLoRAOptimize's report.

    Args:
        merged: the result.
        pair: the two source LoRAs.
        record: the record of the training loop.
        settings: the widgets.
        retention: the retention before (direct merge) and after; None when it was not measured.
        notes: lines to append.
        joint_prompt: whether a joint prompt was connected.
    """
    coefficients, pairs = merged.coefficients, merged.pairs
    direct = replace(merged, coefficients={})
    learned = record.step or settings.closed_form_samples
    warnings = sameness_warnings(compare(pairs))
    warnings += coefficient_warnings(coefficients, settings) if learned else []
    if learned and not joint_prompt and not settings.as_published:
        warnings.append(_NO_JOINT_PROMPT)
    if learned and retention is not None:
        warnings += retention_warnings(*retention, settings)
    if record.failed and record.stopped:
        warnings.insert(0, record.stopped)
    flat = _flat(coefficients)
    half = sum(not p.shared for p in pairs.values())
    lines = [f"WARNING: {warning}" for warning in warnings]
    lines += [
        f"ZipLoRA: {pair.content.name} (content) + {pair.style.name} (style)",
        f"{len(coefficients)} of {len(pairs)} modules optimised, {flat.numel():,} coefficients"
        + (f"; {half} modules are in one LoRA only and stay as they are" if half else ""),
        *_left_out_line(merged, settings.layers),
        f"made for Apply Merged LoRA with negative_strength {settings.negative_strength:g}"
        + (", as for any LoRA loader" if settings.negative_strength == 1 else ""),
    ]
    if settings.gradient_steps:
        lines.append(steps_line(record, settings.steps))
    terms = [term for term in record.history if term != "loss"]
    lines += loss_line(record.history, terms)
    if retention is not None:
        lines += _retention_lines(*retention, settings)
    lines += [*_coefficient_lines(merged), *kept_norm_lines(merged, direct)]
    return compose(lines + record.notes + notes)


def _coefficient_lines(merged: MergedLoRA) -> list[str]:
    flat = _flat(merged.coefficients)
    cosines = [
        (abs(layer_cosine(merged.pairs[name])), abs(layer_cosine(merged.pairs[name], m)))
        for name, m in merged.coefficients.items()
    ]
    before, after = (sum(c) / len(cosines) for c in zip(*cosines, strict=True))
    return [
        f"coefficients (1: kept as it is): mean |content| {float(flat[CONTENT].abs().mean()):.3f}, "
        f"mean |style| {float(flat[STYLE].abs().mean()):.3f}, "
        f"largest change {float((flat - 1).abs().max()):.3f}",
        f"layer cosine (0: independent): mean |cos| {before:.4f} → {after:.4f}",
    ]


def _flat(coefficients: Mapping[str, Tensor]) -> Tensor:
    """Join all coefficients as `(2, n)`."""
    return torch.cat(list(coefficients.values()), dim=1)


def _left_out_line(merged: MergedLoRA, layers: str) -> list[str]:
    """Say what the layer choice leaves as in the direct merge, of the modules of both LoRAs."""
    shared = {name: pair for name, pair in merged.pairs.items() if pair.shared}
    squares = {
        name: sum(inner_product(f, f) for f in pair.factors if f) for name, pair in shared.items()
    }
    left = shared.keys() - merged.coefficients.keys()
    if not left or not (whole := sum(squares.values())):
        return []
    share = sum(squares[name] for name in left) / whole
    return [
        f"layers={layers} leaves {len(left)} modules that both LoRAs have as in the direct merge: "
        f"{share:.0%} of the LoRAs' squared norm; layers=all learns these, too"
    ]


def _verdict(before: Retention, after: Retention) -> str:
    """Say for whom the merge is better than the direct one; a hundredth makes no difference."""

    def word(old: float, new: float) -> str:
        return "better" if new < 0.99 * old else "worse" if new > 1.01 * old else "the same"

    content, style = word(before.content, after.content), word(before.style, after.style)
    return f"{content} for both" if content == style else f"content {content}, style {style}"


def _retention_lines(before: Retention, after: Retention, settings: ZipLoRASettings) -> list[str]:
    def row(name: str, old: float, new: float) -> str:
        ratio = f" (× {new / old:.2f})" if old > 0 else ""
        return f"  {name}: {old:.5f} → {new:.5f}{ratio}"

    says = _verdict(before, after)
    lines = [
        "retention (error against each LoRA alone, on noise not learned from), direct merge → "
        f"ZipLoRA: {says}",
        row("content", before.content, after.content),
        row("style", before.style, after.style),
        row("sum", before.total, after.total),
    ]
    if after.joint is not None:
        lines.append(
            f"  at the joint prompt, against both LoRAs at {settings.joint_content:g} and "
            f"{settings.joint_style:g}: {after.joint:.5f}"
        )
    return lines
