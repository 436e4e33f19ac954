"""Tiny versions of the SDXL variants that ComfyUI supports, with the same blocks in their places.

Call `paths.use_comfyui()` before importing this.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.sd
import comfy.supported_models
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sdxl_clip import SDXLTokenizer
from comfy.supported_models_base import BASE, ClipTarget

from .tiny import PASS_THROUGH, save_checkpoint, tiny_clip
from .tiny_pack.models import REFINER_DIFFERENCES, UNET_CONFIG, TinyRefinerClip
from .tiny_weights import initialise, initialise_unet

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
    "refiner": (comfy.supported_models.SDXLRefiner, REFINER_DIFFERENCES),
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


def refiner_clip(seed: int = 0) -> comfy.sd.CLIP:
    """Build the refiner's one text encoder."""
    clip = comfy.sd.CLIP(
        ClipTarget(SDXLTokenizer, TinyRefinerClip), model_options={"dtype": torch.float32}
    )
    initialise(clip.cond_stage_model, seed)
    return clip


def save_relative(path: Path, kind: str) -> None:
    """Write one of `KINDS` as a checkpoint that `CheckpointLoaderSimple` loads."""
    clip = refiner_clip() if kind == "refiner" else tiny_clip()
    save_checkpoint(path, tiny_relative(kind), clip)
