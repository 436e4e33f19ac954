"""A pair of LoRAs on a model: its modules there, and its merge by a method without training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import problem
from ...files.metadata import source_metadata
from ...lora.comparison import (
    Comparison,
    compare,
    idle_unets,
    refuse_no_update,
    sameness_warnings,
    with_update,
)
from ...lora.layers import choose_layers
from ...lora.merged import MergedLoRA
from ...lora.norms import kept_norm_lines, overlap_line
from ...lora.pair import LoRAPair, ModulePair, pair_modules, scaled
from ...merging import CALIBRATED, MergeSettings, merge, weighted
from ...training.report import compose
from .bases import refuse_refiner
from .family import family_of
from .memory_advice import memory_advice
from .targets import resolve_unet, sgm_named


def pair_on_model(
    pair: LoRAPair, model: Any
) -> tuple[dict[str, ModulePair], dict[str, ModulePair]]:
    """Resolve a pair's UNet modules on a `BaseModel`; return UNet and text-encoder pairs.

    A module whose update is zero counts as one that its LoRA does not have.

    Raises:
        ZipLoRAError: the model is the SDXL refiner, or a LoRA does not fit it or does nothing.
    """
    refuse_refiner(model)
    halves = ((pair.content, pair.content_strength), (pair.style, pair.style_strength))
    unet = pair_modules(*(scaled(with_update(resolve_unet(lora, model)), s) for lora, s in halves))
    text = pair_modules(*(scaled(with_update(lora.text_encoder()), s) for lora, s in halves))
    for lora, concept in ((pair.content, "content"), (pair.style, "style")):
        refuse_no_update(lora, concept)
    return unet, text


def compare_loras(pair: LoRAPair) -> Comparison:
    """Compare the UNet modules of a pair at its strengths, without a model."""
    halves = ((pair.content, pair.content_strength), (pair.style, pair.style_strength))
    return compare(pair_modules(*(scaled(sgm_named(lora.unet()), s) for lora, s in halves)))


@memory_advice("Unload ComfyUI's models")
def merge_pair(
    model: Any, pair: LoRAPair, method: str, settings: MergeSettings
) -> tuple[MergedLoRA, str]:
    """Merge a pair by one of `METHODS`.

    Args:
        model: the `BaseModel` whose key map resolves the modules.
        pair: the two LoRAs and their strengths.
        method: name of the method.
        settings: weights on top of the pair's strengths, and options of the methods.

    Returns:
        the merge and a report.

    Raises:
        ZipLoRAError: a LoRA does not fit the model, the method needs calibration and there are no
            prompts, or nothing is left of either LoRA.
    """
    if method in CALIBRATED and not settings.moments:
        raise problem(
            f"method={method}",
            found="no prompts",
            expected="content_conditioning and style_conditioning: the method measures each LoRA "
            "at its own prompt",
            advice="Connect CLIP Text Encode to both, each with the prompt that LoRA was trained "
            "on, encoded with Load LoRA Pair's content_clip and style_clip.",
        )
    unet, text_encoder = pair_on_model(pair, model)
    metadata = {
        **family_of(model).metadata,
        **source_metadata(pair.content, pair.style),
        "ziplora.method": method,
    }
    sources = MergedLoRA(unet, text_encoder=text_encoder, metadata=metadata)
    merged, notes = merge(method, sources, settings)
    if not merged.modules():
        raise problem(
            f"method={method}",
            found=f"nothing left at content_weight {settings.content_weight:g}, style_weight "
            f"{settings.style_weight:g} and the pair's strengths",
            expected="a part of at least one LoRA",
            advice="Raise a weight or a strength, or choose other blocks.",
        )
    shared = sum(p.shared for p in unet.values())
    lines = [
        f"{method}: {settings.content_weight:g} × {pair.content.name} (content), "
        f"{settings.style_weight:g} × {pair.style.name} (style)",
        f"{len(unet)} UNet modules, {shared} of them in both; "
        f"{len(text_encoder)} text-encoder modules",
    ]
    rank = max((factors.rank for factors in merged.modules().values()), default=0)
    end = f"rank {rank}" + ("" if merged.separable else ", content and style not separable")
    warnings = [*idle_unets(pair), *sameness_warnings(compare(unet))]
    lines += [f"WARNING: {warning}" for warning in warnings]
    lines += overlap_line(unet)
    kept = kept_norm_lines(merged, weighted(sources, settings))
    return merged, compose([*lines, *notes, *kept, end])


def trained_modules(pairs: Mapping[str, ModulePair], layers: str, pair: LoRAPair) -> list[str]:
    """Return the modules that get coefficients: those of the layer choice that both LoRAs have.

    Raises:
        ZipLoRAError: there are none.
    """
    shared = [(name, p.one.down.ndim - 2) for name, p in pairs.items() if p.shared]
    chosen = choose_layers(layers, [(name, kernel) for name, kernel in shared if kernel < 3])
    if not chosen:
        found = f"{len(shared)} modules in common, none of them in layers={layers}"
        raise problem(
            f"{pair.content.name} and {pair.style.name}",
            found="; ".join([found, *idle_unets(pair)]),
            expected="modules that both LoRAs change",
            advice="There are no coefficients to learn: choose other layers, or merge the two with "
            "MergeLoRAs (method direct).",
        )
    return chosen
