"""What a model is, by ComfyUI's own objects: the one place that tells families of models apart."""

from __future__ import annotations

from typing import Any

import comfy.model_sampling
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

from ...files.base_model import SD1, SD2, SDXL
from ...files.families import FAMILIES, Family
from ...lora.factors import NATIVE_PREFIX, UNET_PREFIX

_NAMES = {
    "SDXL": SDXL,
    "SD15": SD1,
    "SD20": SD2,
    "Chroma": "Chroma",
    "Flux2": "FLUX.2",
    "Flux": "FLUX.1",
    "ZImage": "Z-Image",
    "Lumina2": "Lumina 2",
    "QwenImage": "Qwen-Image",
    "Krea2": "Krea 2",
    "Anima": "Anima",
    "WAN21": "Wan",
}
"""The name of ComfyUI's class of a model or of its configuration, and the family; the first match
counts. By name, as an older ComfyUI does not have all of them."""


def family_of(model: Any) -> Family:
    """Return the family of a `BaseModel`; one that is not listed goes by ComfyUI's name for it."""
    kinds = (*type(model).__mro__, *type(model.model_config).__mro__)
    known = {kind.__name__ for kind in kinds}
    for kind, name in _NAMES.items():
        if kind in known:
            return FAMILIES[name]
    name = type(model).__name__
    prefix = UNET_PREFIX if is_unet(model) else NATIVE_PREFIX
    return Family(name, name.lower(), name.lower(), prefix=prefix)


def is_unet(model: Any) -> bool:
    """Return whether a model is a UNet, whose middle block lies between its two sides."""
    return isinstance(model.diffusion_model, UNetModel)


def latent_shape(model: Any, height: int, width: int) -> tuple[int, ...]:
    """Return the latent shape `(channels, [1 frame,] height, width)` of sides in pixels."""
    latent = model.latent_format
    frames = (1,) * (latent.latent_dimensions - 2)
    ratio = latent.spacial_downscale_ratio
    return latent.latent_channels, *frames, height // ratio, width // ratio


def is_flow(model: Any) -> bool:
    """Return whether a model predicts the velocity of a flow from the picture to the noise."""
    return isinstance(model.model_sampling, comfy.model_sampling.CONST)


def guidance(model: Any) -> float:
    """Return the strength of guidance with which a model draws its own pictures.

    5 for models that predict ε or v. Flow matching models get 1, none at all: most of them have
    guidance as an input or were distilled to do without, and their weights do not tell which.
    """
    return 1.0 if is_flow(model) else 5.0


def guided_halves(model: Any) -> int:
    """Return how often a model is asked at each step of a picture: twice with guidance."""
    return 1 if guidance(model) == 1 else 2


def with_training_guidance(model: Any, conditioning: Any) -> Any:
    """Put guidance 1 into a CONDITIONING for a model that has it as an input, as trainers do."""
    if not model.model_config.unet_config.get("guidance_embed"):
        return conditioning
    return [[context, {"guidance": 1.0, **extras}] for context, extras in conditioning]


def reads_pooled(model: Any) -> bool:
    """Return whether a model reads a prompt's pooled output beside its tokens."""
    return bool(model.adm_channels or model.model_config.unet_config.get("vec_in_dim"))


def prompt_width(model: Any) -> int | None:
    """Return the width of the prompts that a model reads; None if its configuration has none."""
    said = model.model_config.unet_config
    widths = (said.get(name) for name in ("context_dim", "context_in_dim", "cap_feat_dim"))
    return next((width for width in widths if width), None)
