"""LoRAs on clones of MODEL and CLIP through ComfyUI's own loader, all or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import comfy.sd

from ...files.writer import kohya_tensors
from ...lora.factors import LoRA, LoraFactors
from ..model.targets import resolve_text_encoder, resolve_unet


def apply_lora(
    modules: Mapping[str, LoraFactors], name: str, model: Any | None, clip: Any | None
) -> tuple[Any | None, Any | None]:
    """Patch clones of MODEL and CLIP; the part of a model that is not connected is left out.

    Args:
        modules: the factors by kohya module name.
        name: the LoRA's name, for messages.
        model, clip: the ModelPatcher and CLIP, which are not changed, or None.

    Returns:
        the patched clones of model and clip.

    Raises:
        ZipLoRAError: a module has no place in the model it belongs to; nothing is applied.
    """
    lora = LoRA(name, modules)
    chosen: dict[str, LoraFactors] = {}
    if model is not None:
        chosen |= resolve_unet(lora, model.model)
    if clip is not None:
        chosen |= resolve_text_encoder(lora, clip)
    return comfy.sd.load_lora_for_models(
        model, clip, kohya_tensors(chosen) if chosen else {}, 1.0, 1.0
    )
