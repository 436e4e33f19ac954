"""What a person reads after a run: plain lines, warnings first."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import torch
from torch import Tensor

from .coefficients import CONTENT, STYLE
from .lora import LoRA
from .low_rank import Approximation, overall_error
from .merge import MergedLoRA, layer_cosine
from .options import ZipSettings
from .pairing import LoRAPair
from .strength import kept_norm_lines
from .trainable import TrainingRecord

STILL = 0.02
"""Largest |m − 1| at which nothing was learned."""
COLLAPSED = 0.3
"""Mean |m| below which a LoRA is all but switched off."""
WORSE = 1.2
"""Retention, in those of the direct merge, above which a merge has not been worth it."""


@dataclass(frozen=True)
class Retention:
    """MSE between merged and single-LoRA predictions on held-out draws, for each concept.

    Args:
        joint: the same beside both LoRAs at full strength, at the joint prompt; None without one.
    """

    content: float
    style: float
    joint: float | None = None

    @property
    def total(self) -> float:
        return self.content + self.style


def coefficient_warnings(coefficients: Mapping[str, Tensor], settings: ZipSettings) -> list[str]:
    """Say it when the coefficients did not move, or collapsed."""
    flat, stepped = _flat(coefficients), settings.gradient_steps > 0
    warnings = []
    if (moved := float((flat - 1).abs().max())) <= STILL:
        advice = f"Raise learning_rate ({settings.learning_rate:g}; the paper's is 0.01) or steps."
        warnings.append(
            f"nothing was learned: no coefficient moved by more than {moved:.4f}, so this is the "
            f"direct merge. {advice if stepped else 'The two LoRAs hardly meet.'}"
        )
    advice = "Use similarity=cosine, or lower similarity_weight or steps."
    for row, concept in ((CONTENT, "content"), (STYLE, "style")):
        if (mean := float(flat[row].abs().mean())) < COLLAPSED:
            warnings.append(
                f"the {concept} coefficients collapsed to a mean of {mean:.2f}: the merge hardly "
                f"draws it. {advice if stepped else 'Connect joint_conditioning.'}"
            )
    return warnings


def retention_warnings(before: Retention, after: Retention, stepped: bool) -> list[str]:
    """Say it when one of the two is kept worse than by the direct merge, or nothing is."""
    if not (math.isfinite(before.total) and math.isfinite(after.total)):
        return [
            "the predictions are not finite, so nothing can be said of this merge: try each LoRA "
            "alone, and lower the pair's strengths"
        ]
    other = ", or lower similarity_weight" if stepped else ""
    return [
        f"the {name} is kept worse than by the direct merge (× {new / old:.2f}): the other one "
        f"weighs more. Bring the pair's strengths nearer to each other{other}."
        for name, old, new in (
            ("content", before.content, after.content),
            ("style", before.style, after.style),
        )
        if old > 0 and new > WORSE * old
    ]


def zip_report(
    merged: MergedLoRA,
    pair: LoRAPair,
    record: TrainingRecord,
    settings: ZipSettings,
    retention: tuple[Retention, Retention] | None,
    notes: list[str],
) -> str:
    """Compose ZipLoRAOptimize's report.

    Args:
        merged: the result.
        pair: its sources.
        record: what the loop did.
        settings: what was asked for.
        retention: before (direct merge) and after, None when it was not measured.
        notes: lines to append.
    """
    coefficients, pairs = merged.coefficients, merged.pairs
    direct = replace(merged, coefficients={})
    learned = record.step or settings.closed_form_states
    warnings = coefficient_warnings(coefficients, settings) if learned else []
    if learned and retention is not None:
        warnings += retention_warnings(*retention, settings.gradient_steps > 0)
    if record.failed and record.stopped:
        warnings.insert(0, record.stopped)
    flat = _flat(coefficients)
    half = sum(not p.shared for p in pairs.values())
    lines = [f"WARNING: {warning}" for warning in warnings]
    lines += [
        f"ZipLoRA: {pair.content.name} (content) + {pair.style.name} (style)",
        f"{len(coefficients)} of {len(pairs)} modules optimised, {flat.numel():,} coefficients"
        + (f"; {half} modules are in one LoRA only and stay as they are" if half else ""),
    ]
    if settings.gradient_steps:
        lines.append(steps_line(record, settings.steps))
    terms = [term for term in record.history if term != "loss"]
    lines += loss_line(record.history, terms)
    if retention is not None:
        lines += _retention_lines(*retention)
    lines += [*_coefficient_lines(merged), *kept_norm_lines(merged, direct)]
    return compose(lines + record.notes + notes)


def compose(lines: Iterable[str]) -> str:
    """Put the lines of a report in their order: warnings first."""
    return "\n".join(sorted(lines, key=lambda line: not line.startswith("WARNING")))


def truncation_line(rank: int, error: float, changed: bool) -> str:
    """Say what a reduction to `rank` has cost, or that there was nothing to reduce."""
    if not changed:
        return f"no module has more than rank {rank}: exact"
    return f"reduced to rank {rank}: relative error {error:.2%} of the exact merge"


def resize_report(
    lora: LoRA, parts: Mapping[str, Approximation], method: str, rank: int, threshold: float
) -> str:
    """Compose ResizeLoRA's report.

    Args:
        lora: what came in.
        parts: its modules as they are now.
        method, rank, threshold: what was asked for.
    """
    asked = [f"{method} ≥ {threshold:g}"] if method != "rank" else []
    asked += [f"rank ≤ {rank}"] if rank else []
    before = _span(factors.rank for factors in lora.modules.values())
    after = _span(part.factors.rank for part in parts.values())
    lines = [
        f"{lora.name}: {len(parts)} modules, {' and '.join(asked)}",
        f"rank, min / median / max: {before} → {after}",
        f"relative error {overall_error(parts.values()):.2%} over all modules; no other LoRA of "
        "these ranks is closer (Eckart-Young)",
    ]
    return "\n".join([*lines, *lora.notes])


def _span(ranks: Iterable[int]) -> str:
    ranks = sorted(ranks)
    return f"{ranks[0]} / {median(ranks):g} / {ranks[-1]}"


def _coefficient_lines(merged: MergedLoRA) -> list[str]:
    flat = _flat(merged.coefficients)
    cosines = [
        (abs(layer_cosine(merged.pairs[name])), abs(layer_cosine(merged.pairs[name], m)))
        for name, m in merged.coefficients.items()
    ]
    before, after = (sum(c) / len(cosines) for c in zip(*cosines, strict=True))
    return [
        f"coefficients: mean |content| {float(flat[CONTENT].abs().mean()):.3f}, "
        f"mean |style| {float(flat[STYLE].abs().mean()):.3f}, "
        f"largest change {float((flat - 1).abs().max()):.3f}",
        f"layer cosine: mean |cos| {before:.4f} → {after:.4f}",
    ]


def _flat(coefficients: Mapping[str, Tensor]) -> Tensor:
    """All coefficients as `(2, n)`."""
    return torch.cat(list(coefficients.values()), dim=1)


def steps_line(record: TrainingRecord, steps: int) -> str:
    """Say how far a run came, and why it ended early."""
    line = f"{record.step} of {steps} steps in {record.seconds:.1f} s"
    if record.resumed_at:
        line += f", resumed at {record.resumed_at}"
    if record.asked_to_stop:
        line += "; to go on, choose Edit → Unload Models and Execution Cache, then Run"
    return f"{line}; {record.stopped}" if record.stopped else line


def loss_line(
    history: Mapping[str, Sequence[float]], terms: Sequence[str], window: int = 10
) -> list[str]:
    """The terms at the start and at the end, each the mean of a few steps."""
    if not history:
        return []
    window = max(1, min(window, len(history["loss"]) // 2))
    spans = [
        f"{name} {_mean(history[name][:window]):.4g} → {_mean(history[name][-window:]):.4g}"
        for name in terms
    ]
    return [f"loss, first and last {window} steps: " + ", ".join(spans)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _retention_lines(before: Retention, after: Retention) -> list[str]:
    def row(name: str, old: float, new: float) -> str:
        ratio = f" (× {new / old:.2f})" if old > 0 else ""
        return f"  {name}: {old:.5f} → {new:.5f}{ratio}"

    lines = [
        "retention on held-out noise, direct merge → ZipLoRA (lower is better):",
        row("content", before.content, after.content),
        row("style", before.style, after.style),
        row("sum", before.total, after.total),
    ]
    if after.joint is not None:
        lines.append(f"  at the joint prompt, beside both at full strength: {after.joint:.5f}")
    return lines
