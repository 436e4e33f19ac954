"""The miniature SDXL for ComfyUI: SDXL's topology, latents of 12 channels, v-prediction.

GroupNorm has 32 groups in ComfyUI's UNet. With 32 channels, each channel would be its own group,
and GroupNorm would remove its mean. That mean is all that a timestep, a pooled prompt or a flat
colour can change, so such a model learns more slowly (docs/QUALITY.md). Every level is 96 wide:
the finest one draws the edges, and it has no attention to help it.

A latent holds 8 × 8 pixels as the four colours of their 4 × 4 quarters, in Haar's basis: their mean
(3 channels) and the three differences (9). A picture of 128 × 128 therefore has latents of 16 × 16.
"""

from __future__ import annotations

from typing import Any, ClassVar

import comfy.supported_models_base
from comfy import latent_formats, sdxl_clip

from .models import CLIP_CONFIG, UNET_CONFIG, TinyClip, TinySDXL

CLIP_WIDTH = 64
LATENT_CHANNELS = 12
CONTRAST = 3.5
"""Latent units per unit of the mean colour; gives it a deviation of about 1 in the world."""
DETAIL_CONTRAST = 10.0
"""Latent units per unit of the differences; these are sparse, and get a deviation of a third."""

CONFIG: dict[str, Any] = {
    **UNET_CONFIG,
    "in_channels": LATENT_CHANNELS,
    "out_channels": LATENT_CHANNELS,
    "model_channels": 96,
    "channel_mult": [1, 1, 1],
    "context_dim": 2 * CLIP_WIDTH,
    "adm_in_channels": CLIP_WIDTH + 6 * 256,
}
TEXT_CONFIG = {
    **CLIP_CONFIG,
    "hidden_size": CLIP_WIDTH,
    "intermediate_size": 2 * CLIP_WIDTH,
    "projection_dim": CLIP_WIDTH,
}


class MiniLatents(latent_formats.LatentFormat):
    """The first three channels are the mean colours; ComfyUI's previews show only these."""

    latent_channels = LATENT_CHANNELS
    scale_factor = 1.0
    latent_rgb_factors: ClassVar[list[list[float]]] = [
        [2 / CONTRAST * (row == column) for column in range(3)] for row in range(LATENT_CHANNELS)
    ]


class MiniClip(TinyClip):
    """SDXL's two text encoders, 64 wide."""

    config = TEXT_CONFIG


class MiniSDXL(TinySDXL):
    """SDXL, recognised by its text width."""

    unet_config: ClassVar[dict[str, Any]] = {key: CONFIG[key] for key in TinySDXL.unet_config}
    latent_format = MiniLatents
    unet_extra_config: ClassVar[dict[str, int]] = {"num_heads": -1, "num_head_channels": 32}

    def inpaint_model(self) -> bool:
        return False  # ComfyUI takes more than four channels as a sign of a mask

    def clip_target(self, state_dict: Any = None) -> comfy.supported_models_base.ClipTarget:
        return comfy.supported_models_base.ClipTarget(sdxl_clip.SDXLTokenizer, MiniClip)
