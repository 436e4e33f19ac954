"""Report lines of merges without training and of resized LoRAs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median

from ..lora.factors import LoRA
from ..lora.svd import Approximation, overall_error


def truncation_line(rank: int, error: float, changed: bool) -> str:
    """Report the error of a reduction to `rank`, or that there was nothing to reduce."""
    if not changed:
        return f"no module has more than rank {rank}: exact"
    return f"reduced to rank {rank}: relative error {error:.2%} of the exact merge"


def resize_report(
    lora: LoRA, parts: Mapping[str, Approximation], method: str, rank: int, threshold: float
) -> str:
    """Compose ResizeLoRA's report.

    Args:
        lora: the original LoRA.
        parts: its resized modules.
        method, rank, threshold: the node's settings.
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
