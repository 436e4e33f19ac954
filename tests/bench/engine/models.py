"""SDXL in three sizes, with random weights, random LoRAs and random prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_base
import comfy.model_management
import comfy.supported_models
import torch
from comfy.model_patcher import ModelPatcher
from torch import Size

from sandbox import tiny
from sandbox.tiny_pack.models import UNET_CONFIG
from sandbox.tiny_weights import initialise_unet
from ziplora_core.comfy_adapter.model.private_copy import compute_dtype
from ziplora_core.comfy_adapter.model.targets import unet_targets
from ziplora_core.lora.factors import LoraFactors
from ziplora_core.lora.pair import ModulePair

POOLED, CONTEXT, CHANNELS = 1280, 2048, 320
"""SDXL's widths of the pooled prompt, of the prompt's tokens and of the UNet's first blocks."""
TOKENS = 77
STRENGTH = 0.25
"""Norm of a random LoRA's update, relative to that of a random weight of the same shape."""


@dataclass(frozen=True)
class Scale:
    """One size of the benchmark.

    Args:
        name: name on the command line.
        factor: factor of SDXL's widths; None for the tests' tiny SDXL, which also has fewer blocks.
        latent: side of the square latents.
        rank: rank of the content LoRA and of the style LoRA.
    """

    name: str
    factor: float | None
    latent: int
    rank: int


SIZES = {
    scale.name: scale
    for scale in (
        Scale("tiny", None, 16, 8),
        Scale("medium", 0.3, 64, 16),
        Scale("full", 1.0, 128, 64),
    )
}


def unet_config(scale: Scale) -> dict[str, Any]:
    """Return SDXL's topology (70 transformer blocks, 560 attention linears) with scaled widths."""
    if scale.factor is None:
        return UNET_CONFIG
    return {
        **UNET_CONFIG,
        **comfy.supported_models.SDXL.unet_config,
        "transformer_depth_middle": 10,
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
        "model_channels": round(scale.factor * CHANNELS),
        "context_dim": 8 * round(scale.factor * CONTEXT / 8),
        "adm_in_channels": round(scale.factor * POOLED) + 6 * 256,
    }


def make_model(scale: Scale) -> ModelPatcher:
    """Build the model with random weights in its compute dtype."""
    device, cpu = comfy.model_management.get_torch_device(), torch.device("cpu")
    config = comfy.supported_models.SDXL(unet_config(scale))
    config.set_inference_dtype(compute_dtype(device), None)
    model = config.get_model({}, device=cpu)
    initialise_unet(model.diffusion_model, tiny.PASS_THROUGH["eps"], seed=0)
    return ModelPatcher(model, load_device=device, offload_device=cpu)


def random_pairs(
    model: comfy.model_base.BaseModel, keys: Sequence[str], rank: int
) -> dict[str, ModulePair]:
    """Draw a content LoRA and a style LoRA of some weights, by kohya name."""
    names = {key: name for name, key in unet_targets(model).items()}
    shapes, rng = model.state_dict(), torch.Generator().manual_seed(1)
    return {
        names[key]: ModulePair(*(random_factors(shapes[key].shape, rank, rng) for _ in range(2)))
        for key in keys
    }


def random_factors(shape: Size, rank: int, rng: torch.Generator) -> LoraFactors:
    """Draw an update `(out, in)` with STRENGTH times the norm of a random weight of that shape."""
    out_features, in_features = shape
    down = torch.randn(rank, in_features, generator=rng) * in_features**-0.5
    up = torch.randn(out_features, rank, generator=rng) * STRENGTH * rank**-0.5
    return LoraFactors(down, up, float(rank))


def random_prompt(config: Mapping[str, Any], seed: int) -> list[list[Any]]:
    """Draw a CONDITIONING in the form of a text encoder's."""
    rng = torch.Generator().manual_seed(seed)
    context = torch.randn(1, TOKENS, config["context_dim"], generator=rng)
    pooled = torch.randn(1, config["adm_in_channels"] - 6 * 256, generator=rng)
    return [[context, {"pooled_output": pooled}]]
