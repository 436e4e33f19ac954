"""What a model is, by ComfyUI's own objects: the one place that tells families of models apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import comfy.model_base as bases
import comfy.model_sampling
import comfy.supported_models as configs
from comfy.ldm.flux.layers import DoubleStreamBlock, SingleStreamBlock

from ...files.base_model import SD1, SD2, SDXL
from ...lora.factors import NATIVE_PREFIX, UNET_PREFIX


@dataclass(frozen=True)
class Family:
    """A family of models that share their layers, and so their LoRAs.

    Args:
        name: what people call it; the same as in `describe_base`.
        architecture: `modelspec.architecture` of its LoRAs, as their trainers write it.
        version: `ss_base_model_version` of its LoRAs.
        implementation: `modelspec.implementation`.
        prefix: prefix of a module's name in its LoRA files: kohya's, or the network's own names.
        resolution: side in pixels of the pictures that it was trained on.
    """

    name: str
    architecture: str
    version: str
    implementation: str = ""
    prefix: str = NATIVE_PREFIX
    resolution: int = 1024

    @property
    def metadata(self) -> dict[str, str]:
        """The strings with which a LoRA's file says what it is for."""
        return {
            "ss_base_model_version": self.version,
            "modelspec.architecture": f"{self.architecture}/lora",
            "modelspec.implementation": self.implementation,
            "modelspec.resolution": f"{self.resolution}x{self.resolution}",
        }


_STABILITY = "https://github.com/Stability-AI/generative-models"
_FLUX = "https://github.com/black-forest-labs/flux"
SDXL_FAMILY = Family(SDXL, "stable-diffusion-xl-v1-base", "sdxl_base_v1-0", _STABILITY, UNET_PREFIX)
_FAMILIES: tuple[tuple[type, Family], ...] = (
    (bases.SDXL, SDXL_FAMILY),
    (
        configs.SD15,
        Family(SD1, "stable-diffusion-v1", "sd_v1", _STABILITY, UNET_PREFIX, resolution=512),
    ),
    (
        configs.SD20,
        Family(SD2, "stable-diffusion-v2", "sd_v2", _STABILITY, UNET_PREFIX, resolution=768),
    ),
    (bases.Chroma, Family("Chroma", "chroma", "chroma", _FLUX, UNET_PREFIX)),
    (bases.Flux2, Family("FLUX.2", "Flux.2-dev", "flux2", f"{_FLUX}2")),
    (bases.Flux, Family("FLUX.1", "flux-1-dev", "flux1", _FLUX, UNET_PREFIX)),
    (
        configs.ZImage,
        Family("Z-Image", "Z-Image", "zimage", "https://github.com/Tongyi-MAI/Z-Image"),
    ),
    (
        bases.Lumina2,
        Family("Lumina 2", "lumina-2", "lumina2", "https://github.com/Alpha-VLLM/Lumina-Image-2.0"),
    ),
    (
        bases.QwenImage,
        Family("Qwen-Image", "Qwen-Image", "qwen_image", "https://github.com/QwenLM/Qwen-Image"),
    ),
    (bases.Krea2, Family("Krea 2", "krea2", "krea2", "https://github.com/krea-ai")),
    (
        bases.Anima,
        Family("Anima", "anima", "anima", "https://github.com/circlestone-labs/Anima"),
    ),
    (bases.WAN21, Family("Wan", "wan2.1", "wan_2.1", "https://github.com/Wan-Video/Wan2.1")),
)
"""ComfyUI's class of a model or of its configuration, and the family; the first match counts."""


def family_of(model: Any) -> Family:
    """Return the family of a `BaseModel`; one that is not listed goes by ComfyUI's name for it."""
    for kind, family in _FAMILIES:
        if isinstance(model, kind) or isinstance(model.model_config, kind):
            return family
    name = type(model).__name__
    return Family(name, name.lower(), name.lower())


def latent_shape(model: Any, height: int, width: int) -> tuple[int, ...]:
    """Return the latent shape `(channels, [1 frame,] height, width)` of sides in pixels."""
    latent = model.latent_format
    frames = (1,) * (latent.latent_dimensions - 2)
    ratio = latent.spacial_downscale_ratio
    return latent.latent_channels, *frames, height // ratio, width // ratio


def guidance(model: Any) -> float:
    """Return the strength of guidance with which a model draws its own pictures.

    5 for models that predict ε or v. Flow matching models get 1, none at all: most of them have
    guidance as an input or were distilled to do without, and their weights do not tell which.
    """
    return 1.0 if isinstance(model.model_sampling, comfy.model_sampling.CONST) else 5.0


def guided_halves(model: Any) -> int:
    """Return how often a model is asked at each step of a picture: twice with guidance."""
    return 1 if guidance(model) == 1 else 2


def writes_in_place(model: Any) -> bool:
    """Return whether blocks of a model write into tensors that their backward pass reads."""
    blocks = DoubleStreamBlock, SingleStreamBlock
    return any(isinstance(block, blocks) for block in model.diffusion_model.modules())


def reads_pooled(model: Any) -> bool:
    """Return whether a model reads a prompt's pooled output beside its tokens."""
    return bool(model.adm_channels or model.model_config.unet_config.get("vec_in_dim"))


def prompt_width(model: Any) -> int | None:
    """Return the width of the prompts that a model reads; None if its configuration has none."""
    said = model.model_config.unet_config
    widths = (said.get(name) for name in ("context_dim", "context_in_dim", "cap_feat_dim"))
    return next((width for width in widths if width), None)
