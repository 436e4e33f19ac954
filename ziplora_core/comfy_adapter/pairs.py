"""A pair of LoRAs on a model: which modules they have in common there, and their exact sum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import comfy.model_base

from ..errors import problem
from ..files.metadata import source_metadata
from ..layers import choose_layers
from ..merge import MergedLoRA, truncated
from ..pairing import LoRAPair, ModulePair, pair_modules, scaled
from ..report import truncation_line
from .targets import resolve_unet


def pair_on_model(
    pair: LoRAPair, model: Any
) -> tuple[dict[str, ModulePair], dict[str, ModulePair]]:
    """Resolve a pair's UNet modules on a `BaseModel`; returns UNet and text-encoder pairs.

    Raises:
        ZipLoRAError: the model is not of the SDXL family, or a LoRA does not fit it.
    """
    if not isinstance(model, comfy.model_base.SDXL):
        raise problem(
            "model",
            found=f"a {type(model).__name__} model",
            expected="SDXL or a checkpoint of its family (Pony, Illustrious, NoobAI, …)",
            advice="Load an SDXL checkpoint; the files are written for SDXL.",
        )
    halves = ((pair.content, pair.content_strength), (pair.style, pair.style_strength))
    unet = pair_modules(*(scaled(resolve_unet(lora, model), s) for lora, s in halves))
    text = pair_modules(*(scaled(lora.text_encoder(), s) for lora, s in halves))
    return unet, text


def direct_merge(
    model: Any, pair: LoRAPair, content_weight: float, style_weight: float, rank: int
) -> tuple[MergedLoRA, str]:
    """Join a pair exactly (arXiv:2311.13600, eq. 1): delta = w_c delta_c + w_s delta_s.

    Args:
        model: the `BaseModel` whose key map resolves the modules.
        pair: the two LoRAs and their strengths.
        content_weight, style_weight: w_c and w_s.
        rank: 0 for the exact sum, otherwise its best approximation of this rank.

    Returns:
        the merge and a report.
    """
    weighted = replace(
        pair,
        content_strength=pair.content_strength * content_weight,
        style_strength=pair.style_strength * style_weight,
    )
    unet, text_encoder = pair_on_model(weighted, model)
    metadata = source_metadata(pair.content, pair.style) | {"ziplora.method": "direct"}
    merged = MergedLoRA(unet, text_encoder=text_encoder, metadata=metadata)
    shared = sum(p.shared for p in unet.values())
    lines = [
        f"direct merge: {content_weight:g} × {pair.content.name} + "
        f"{style_weight:g} × {pair.style.name}",
        f"{len(unet)} UNet modules, {shared} of them in both; "
        f"{len(text_encoder)} text-encoder modules",
    ]
    if rank:
        exact, (merged, error) = merged, truncated(merged, rank)
        lines.append(truncation_line(rank, error, merged is not exact))
    return merged, "\n".join(lines)


def trained_modules(pairs: Mapping[str, ModulePair], layers: str, pair: LoRAPair) -> list[str]:
    """Name the modules that get coefficients: in the layer choice, and in both LoRAs.

    Raises:
        ZipLoRAError: there are none.
    """
    shared = [(name, p.one.down.ndim - 2) for name, p in pairs.items() if p.shared]
    chosen = choose_layers(layers, shared)
    if not chosen:
        raise problem(
            f"{pair.content.name} and {pair.style.name}",
            found=f"{len(shared)} modules in common, none of them in layers={layers}",
            expected="modules that both LoRAs change",
            advice="There is nothing to weigh against each other: choose other layers, or join "
            "the two with MergeLoRAs (method direct).",
        )
    return chosen
