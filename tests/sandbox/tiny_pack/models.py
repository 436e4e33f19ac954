"""The tiny SDXL and refiner for ComfyUI: the same blocks in the same places, a tenth as wide."""

from __future__ import annotations

from typing import Any, ClassVar

import comfy.supported_models
import comfy.supported_models_base
import comfy.utils
from comfy import sdxl_clip
from torch import Tensor

CLIP_WIDTH = 32
"""Width of each of the two text encoders; the context is twice as wide."""

CLIP_PREFIX = "conditioner.tiny."

UNET_CONFIG: dict[str, Any] = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "num_res_blocks": [2, 2, 2],
    "channel_mult": [1, 2, 4],
    "transformer_depth": [0, 0, 1, 1, 1, 1],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [0, 0, 0, 1, 1, 1, 1, 1, 1],
    "context_dim": 2 * CLIP_WIDTH,
    "adm_in_channels": CLIP_WIDTH + 6 * 256,
    "num_classes": "sequential",
    "use_linear_in_transformer": True,
    "use_spatial_transformer": True,
    "legacy": False,
    "use_checkpoint": False,
    "use_temporal_attention": False,
    "use_temporal_resblock": False,
}

REFINER_DIFFERENCES: dict[str, Any] = {
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [0, 0, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "context_dim": CLIP_WIDTH,
    "adm_in_channels": CLIP_WIDTH + 5 * 256,
}
"""The refiner's UNet configuration, where it is not the tiny SDXL's."""

CLIP_CONFIG = {
    "hidden_size": CLIP_WIDTH,
    "intermediate_size": 2 * CLIP_WIDTH,
    "num_attention_heads": 2,
    "num_hidden_layers": 3,
    "projection_dim": CLIP_WIDTH,
}


class TinyClip(sdxl_clip.SDXLClipModel):
    """SDXL's two text encoders with three narrow layers each, and SDXL's own tokenizer."""

    config: ClassVar[dict[str, int]] = CLIP_CONFIG

    def __init__(self, device: Any = "cpu", dtype: Any = None, model_options: Any = None) -> None:
        own = {"clip_l_model_config": self.config, "clip_g_model_config": self.config}
        super().__init__(device=device, dtype=dtype, model_options={**(model_options or {}), **own})

    def load_sd(self, sd: dict[str, Tensor]) -> Any:
        return self.load_state_dict(sd, strict=False)


class TinyRefinerClip(sdxl_clip.SDXLRefinerClipModel):
    """The refiner's CLIP, with only the second of SDXL's text encoders."""

    def __init__(self, device: Any = "cpu", dtype: Any = None, model_options: Any = None) -> None:
        own = {"clip_g_model_config": CLIP_CONFIG}
        super().__init__(device=device, dtype=dtype, model_options={**(model_options or {}), **own})

    def load_sd(self, sd: dict[str, Tensor]) -> Any:
        return self.load_state_dict(sd, strict=False)


class TinySDXL(comfy.supported_models.SDXL):
    """SDXL, recognised by its tiny width."""

    unet_config: ClassVar[dict[str, Any]] = {
        key: UNET_CONFIG[key] for key in comfy.supported_models.SDXL.unet_config
    }

    def process_clip_state_dict(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        return comfy.utils.state_dict_prefix_replace(
            state_dict, {CLIP_PREFIX: ""}, filter_keys=True
        )

    def clip_target(self, state_dict: Any = None) -> comfy.supported_models_base.ClipTarget:
        return comfy.supported_models_base.ClipTarget(sdxl_clip.SDXLTokenizer, TinyClip)


class TinyRefiner(comfy.supported_models.SDXLRefiner):
    """SDXL's refiner, recognised by its tiny width."""

    unet_config: ClassVar[dict[str, Any]] = {
        key: {**UNET_CONFIG, **REFINER_DIFFERENCES}[key]
        for key in comfy.supported_models.SDXLRefiner.unet_config
    }

    process_clip_state_dict = TinySDXL.process_clip_state_dict

    def clip_target(self, state_dict: Any = None) -> comfy.supported_models_base.ClipTarget:
        return comfy.supported_models_base.ClipTarget(sdxl_clip.SDXLTokenizer, TinyRefinerClip)
