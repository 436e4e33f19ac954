"""Report lines on the norm of a merge and the overlap of its two LoRAs."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

from .factors import inside_unet
from .merged import MergedLoRA, join, layer_cosine
from .pair import ModulePair
from .svd import inner_product


def kept_norm_lines(merged: MergedLoRA, direct: MergedLoRA) -> list[str]:
    """Report ‖merged‖_F / ‖direct‖_F over the modules that both LoRAs have, in total and by layer.

    An objective that matches each LoRA on its own inputs tends to their average, which has half the
    strength, where both LoRAs see the same inputs.
    """
    squares = {
        name: (_square(merged, name), _square(direct, name))
        for name, pair in direct.pairs.items()
        if pair.shared and not _cancels(pair)
    }
    layers = {name: (ours / sums) ** 0.5 for name, (ours, sums) in squares.items() if sums > 0}
    if not layers:
        return []
    ours, sums = (sum(part) for part in zip(*squares.values(), strict=True))
    weakest = min(layers, key=lambda name: layers[name])
    span = f"{layers[weakest]:.2f} / {median(layers.values()):.2f} / {max(layers.values()):.2f}"
    return [
        f"‖merged‖ / ‖direct‖ in the shared modules: {(ours / sums) ** 0.5:.2f} "
        f"(min / median / max: {span}; weakest: {inside_unet(weakest)})"
    ]


def overlap_line(pairs: Mapping[str, ModulePair]) -> list[str]:
    """Report the overlap of two LoRAs: the mean and the largest |layer cosine|."""
    cosines = [abs(layer_cosine(pair)) for pair in pairs.values() if pair.shared]
    if not cosines:
        return []
    mean = sum(cosines) / len(cosines)
    return [f"overlap (layer cosine): mean |cos| {mean:.4f}, largest {max(cosines):.4f}"]


def _square(merged: MergedLoRA, name: str) -> float:
    pair = merged.pairs.get(name)
    factors = join(pair, merged.coefficients.get(name)) if pair else None
    return max(inner_product(factors, factors), 0.0) if factors else 0.0


def _cancels(pair: ModulePair) -> bool:
    """Return whether the sum is only rounding error, as for a LoRA and its negative."""
    whole = join(pair)
    parts = sum(inner_product(f, f) for f in pair.factors if f)
    return whole is None or inner_product(whole, whole) <= 1e-10 * parts
