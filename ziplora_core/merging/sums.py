"""Merges that are weighted sums, exact or truncated to their strongest directions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from statistics import median

from ..lora.factors import LoraFactors
from ..lora.merged import MergedLoRA, approximated
from ..lora.pair import ModulePair, pair_modules, scaled
from ..lora.svd import approximate, inner_product
from .settings import Merged, MergeSettings, shared_only, to_rank, weighted


def direct(sources: MergedLoRA, settings: MergeSettings) -> Merged:
    """Join the LoRAs exactly: delta = w_c delta_c + w_s delta_s (arXiv:2311.13600, eq. 1)."""
    return to_rank(weighted(sources, settings), settings.rank)


def svd(sources: MergedLoRA, settings: MergeSettings) -> Merged:
    """Truncate the same sum to its first `rank` of r_c + r_s singular directions."""
    rank = settings.rank
    merged, error = approximated(
        weighted(sources, settings), lambda f: approximate(f, lambda s: rank or f.rank)
    )
    kept = f"the first {rank}" if rank else "all"
    return merged, [f"{kept} singular directions kept: relative error {error:.2%} of the sum"]


def norm_balance(sources: MergedLoRA, settings: MergeSettings) -> Merged:
    """Scale the style to the content's norm in every layer, then join.

        delta = w_c delta_c + w_s γ delta_s,    γ = ‖delta_c‖_F / ‖delta_s‖_F

    γ is that of K-LoRA (arXiv:2502.18461, eq. 6), with Frobenius norms.
    """
    gammas: list[float] = []

    def balance(content: LoraFactors, style: LoraFactors) -> ModulePair:
        squares = inner_product(content, content) / inner_product(style, style)
        gammas.append(abs(settings.style_weight / settings.content_weight) * squares**0.5)
        return ModulePair(content, scaled({"": style}, gammas[-1])[""])

    merged, lines = to_rank(
        shared_only(weighted(sources, settings), balance, settings.on_module), settings.rank
    )
    if gammas:
        span = f"{min(gammas):.3g} / {median(gammas):.3g} / {max(gammas):.3g}"
        lines = [f"style scaled per layer, min / median / max: {span}", *lines]
    return merged, lines


def norm_cap(sources: MergedLoRA, settings: MergeSettings) -> Merged:
    """Limit the sum's norm over all layers to that of the stronger LoRA.

        delta = g (w_c delta_c + w_s delta_s),    g = min(1, max ‖w_k delta_k‖ / ‖Σ w_k delta_k‖)

    Two unrelated LoRAs of equal norm get g = 0.71. UNet and text encoders have separate g.
    """
    joined = weighted(sources, settings)
    (pairs, g), (text_encoder, g_text) = _capped(joined.pairs), _capped(joined.text_encoder)
    merged = replace(joined, pairs=pairs, text_encoder=text_encoder)
    merged, lines = to_rank(merged, settings.rank)
    text = f", by {g_text:.3f} in the text encoders" if text_encoder else ""
    return merged, [f"both LoRAs scaled by {g:.3f} in the UNet{text}", *lines]


def _capped(pairs: Mapping[str, ModulePair]) -> tuple[dict[str, ModulePair], float]:
    """Multiply both halves by g; return the pairs and g."""
    squares = [0.0, 0.0]
    cross = 0.0
    for pair in pairs.values():
        for branch, factors in enumerate(pair.factors):
            squares[branch] += inner_product(factors, factors) if factors else 0.0
        if pair.content and pair.style:
            cross += 2 * inner_product(pair.content, pair.style)
    total = sum(squares) + cross
    g = min(1.0, (max(squares) / total) ** 0.5) if total > 0 else 1.0
    content = scaled({name: p.content for name, p in pairs.items() if p.content}, g)
    style = scaled({name: p.style for name, p in pairs.items() if p.style}, g)
    return pair_modules(content, style), g
