"""Tiny versions of the SDXL variants that ComfyUI supports, with the same blocks in their places.

Call `paths.use_comfyui()` before importing this.
"""

from __future__ import annotations

from typing import Any

import comfy.supported_models
import torch
from comfy.model_patcher import ModelPatcher
from comfy.supported_models_base import BASE

from .tiny import PASS_THROUGH
from .tiny_pack.models import CLIP_WIDTH, UNET_CONFIG
from .tiny_weights import initialise_unet

_ONE_RES_BLOCK = {
    "num_res_blocks": [1, 1, 1],
    "transformer_depth": [0, 1, 1],
    "transformer_depth_output": [0, 0, 1, 1, 1, 1],
}
KINDS: dict[str, tuple[type[BASE], dict[str, Any]]] = {
    "inpaint": (comfy.supported_models.SDXL, {"in_channels": 9}),
    "instruct": (comfy.supported_models.SDXL_instructpix2pix, {"in_channels": 8}),
    "ssd_1b": (
        comfy.supported_models.SSD1B,
        {"transformer_depth_middle": -1, "transformer_depth_output": [0, 0, 0, 1, 1, 2, 3, 1, 1]},
    ),
    "vega": (comfy.supported_models.Segmind_Vega, {"transformer_depth_middle": -1}),
    "koala_700m": (
        comfy.supported_models.KOALA_700M, {**_ONE_RES_BLOCK, "transformer_depth_middle": -2}
    ),
    "koala_1b": (comfy.supported_models.KOALA_1B, _ONE_RES_BLOCK),
    "refiner": (
        comfy.supported_models.SDXLRefiner,
        {
            "num_res_blocks": [2, 2, 2, 2],
            "channel_mult": [1, 2, 4, 4],
            "transformer_depth": [0, 0, 1, 1, 1, 1, 0, 0],
            "transformer_depth_output": [0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0],
            "context_dim": CLIP_WIDTH,
            "adm_in_channels": CLIP_WIDTH + 5 * 256,
        },
    ),
}  # fmt: skip
"""ComfyUI's configuration of each variant, and the differences of its UNet from the tiny SDXL's. A
middle block of depth -1 has no transformer; with -2 there is no middle block."""


def tiny_relative(kind: str, seed: int = 0) -> ModelPatcher:
    """Build one of `KINDS` in this process, with the reload factory of a loader."""
    configuration, differences = KINDS[kind]
    config = configuration({**UNET_CONFIG, **differences})
    config.set_inference_dtype(torch.float32, None)
    cpu = torch.device("cpu")
    model = config.get_model({}, device=cpu)
    initialise_unet(model.diffusion_model, PASS_THROUGH["eps"], seed)
    patcher = ModelPatcher(model, load_device=cpu, offload_device=cpu)
    patcher.cached_patcher_init = (lambda disable_dynamic=False: tiny_relative(kind, seed), ())
    return patcher
