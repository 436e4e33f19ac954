"""Merges in which each LoRA acts in its own UNet blocks."""

from __future__ import annotations

from dataclasses import replace

from ..lora.blocks import refuse_other_blocks, weights_of
from ..lora.factors import LoraFactors
from ..lora.merged import MergedLoRA
from ..lora.pair import pair_modules, scaled
from ..lora.svd import inner_product
from .settings import Merged, MergeSettings, to_rank, weighted


def block_masks(sources: MergedLoRA, settings: MergeSettings) -> Merged:
    """Weigh content and style block by block (B-LoRA, arXiv:2403.14572, with its own preset).

        delta_l = w_c b_c(l) delta_c + w_s b_s(l) delta_s

    An ordinary LoRA, which was not trained for these blocks, loses its updates elsewhere. The
    report says how much. Text encoders keep both LoRAs.
    """
    refuse_other_blocks(settings.blocks, sources.pairs)
    joined = weighted(sources, settings)
    halves: list[dict[str, LoraFactors]] = [{}, {}]
    kept, total = [0.0, 0.0], [0.0, 0.0]
    for name, pair in joined.pairs.items():
        for branch, factors in enumerate(pair.factors):
            if factors is None:
                continue
            weight = weights_of(settings.blocks, name)[branch]
            energy = inner_product(factors, factors)
            total[branch] += energy
            kept[branch] += weight**2 * energy
            if weight:
                halves[branch] |= scaled({name: factors}, weight)
    merged, lines = to_rank(replace(joined, pairs=pair_modules(*halves)), settings.rank)
    shares = [
        f"{concept} {part / whole:.0%}"
        for concept, part, whole in zip(("content", "style"), kept, total, strict=True)
        if whole
    ]
    return merged, [f"share of ‖delta‖² kept in the UNet: {', '.join(shares)}", *lines]
