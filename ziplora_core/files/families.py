"""What the LoRA files of each family of models say that they are for."""

from __future__ import annotations

from dataclasses import dataclass

from ..lora.factors import NATIVE_PREFIX, UNET_PREFIX
from .base_model import SD1, SD2, SDXL


@dataclass(frozen=True)
class Family:
    """A family of models that share their layers, and so their LoRAs.

    Args:
        name: what people call it; the same as in `describe_base`.
        architecture: `modelspec.architecture` of its LoRAs, as their trainers write it.
        version: `ss_base_model_version` of its LoRAs.
        implementation: `modelspec.implementation`.
        prefix: prefix of a module's name in its files: kohya's, or the network's own names.
        resolution: side in pixels of the pictures that it was trained on.
        trainers: how a program for it trains LoRAs, in words; empty for SDXL's like, for which the
            nodes' defaults are made.
    """

    name: str
    architecture: str
    version: str
    implementation: str = ""
    prefix: str = NATIVE_PREFIX
    resolution: int = 1024
    trainers: str = ""

    @property
    def metadata(self) -> dict[str, str]:
        """The strings of a file's header that say what it is for."""
        return {
            "ss_base_model_version": self.version,
            "modelspec.architecture": f"{self.architecture}/lora",
            "modelspec.implementation": self.implementation,
            "modelspec.resolution": f"{self.resolution}x{self.resolution}",
        }


_AI_TOOLKIT = "ai-toolkit's example has rank {}, learning rate 1e-4 and 2,000 steps"
_MUSUBI = "musubi-tuner's example has rank 32, alpha {} and learning rate 1e-4"
_STABILITY = "https://github.com/Stability-AI/generative-models"
_FLUX = "https://github.com/black-forest-labs/flux"
FAMILIES = {
    family.name: family
    for family in (
        Family(SDXL, "stable-diffusion-xl-v1-base", "sdxl_base_v1-0", _STABILITY, UNET_PREFIX),
        Family(SD1, "stable-diffusion-v1", "sd_v1", _STABILITY, UNET_PREFIX, 512),
        Family(SD2, "stable-diffusion-v2", "sd_v2", _STABILITY, UNET_PREFIX, 768),
        Family(
            "FLUX.1", "flux-1-dev", "flux1", _FLUX, UNET_PREFIX, trainers=_AI_TOOLKIT.format(16)
        ),
        Family("FLUX.2", "Flux.2-dev", "flux2", f"{_FLUX}2"),
        Family("Chroma", "chroma", "chroma", _FLUX, UNET_PREFIX, trainers=_AI_TOOLKIT.format(16)),
        Family(
            "Z-Image", "Z-Image", "zimage", "https://github.com/Tongyi-MAI/Z-Image",
            trainers=f"{_MUSUBI.format(1)}; train on Base: Turbo forgets how to draw in few steps",
        ),
        Family("Lumina 2", "lumina-2", "lumina2", "https://github.com/Alpha-VLLM/Lumina-Image-2.0"),
        Family(
            "Qwen-Image", "Qwen-Image", "qwen_image", "https://github.com/QwenLM/Qwen-Image",
            trainers=_AI_TOOLKIT.format(16),
        ),
        Family(
            "Krea 2", "krea2", "krea2",
            trainers=f"{_MUSUBI.format(32)}; train on Raw, and draw with Turbo",
        ),
        Family("Anima", "anima", "anima"),
        Family(
            "Wan", "wan2.1", "wan_2.1", "https://github.com/Wan-Video/Wan2.1",
            trainers=_AI_TOOLKIT.format(32),
        ),
    )
}  # fmt: skip
"""The names are those of sd-scripts, musubi-tuner and ai-toolkit where these train the family."""
