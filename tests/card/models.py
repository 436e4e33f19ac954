"""Models and pictures for the trainers: SDXL in a size of the benchmark, with random weights."""

from __future__ import annotations

from dataclasses import dataclass

import comfy.model_management
import comfy.sd
import comfy.supported_models
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sdxl_clip import SDXLClipModel, SDXLTokenizer
from comfy.supported_models_base import ClipTarget
from torch import Tensor

from bench.engine.models import Scale, random_pairs, unet_config
from sandbox import tiny
from sandbox.tiny_weights import initialise, initialise_unet
from ziplora_core.lora.factors import LoRA
from ziplora_core.lora.pair import LoRAPair

LAYERS = 12, 32
"""Numbers of layers of SDXL's two text encoders."""


@dataclass(frozen=True)
class CardModels:
    """Models and pictures of one size.

    Args:
        scale: size of the benchmark.
        model: the MODEL, in the dtype in which ComfyUI loads a checkpoint on this device.
        clip: text encoders whose prompts fit the UNet, of SDXL's depths unless the size is tiny.
        vae: a VAE that averages 8 × 8 pixels.
        pair: two random LoRAs of all attention linears.
    """

    scale: Scale
    model: ModelPatcher
    clip: comfy.sd.CLIP
    vae: comfy.sd.VAE
    pair: LoRAPair

    def picture(self, seed: int) -> Tensor:
        """Draw a random picture `(1, h, w, 3)` in 0…1 of the training's size."""
        rng = torch.Generator().manual_seed(seed)
        return torch.rand(1, self.pixels, self.pixels, 3, generator=rng)

    @property
    def pixels(self) -> int:
        return 8 * self.scale.latent


def open_models(scale: Scale, drawn: bool, device: torch.device | None = None) -> CardModels:
    """Build models and pictures.

    Args:
        scale: size of the benchmark.
        drawn: whether to draw the weights, unnecessary if nothing is computed.
        device: device of the UNet; None for ComfyUI's.
    """
    model = _unet(scale, drawn, device or comfy.model_management.get_torch_device())
    keys = tiny.attention_linears(model.model)
    pairs = random_pairs(model.model, keys, scale.rank)
    content, style = (
        LoRA(name, {module: pair.factors[half] for module, pair in pairs.items()}, {})
        for half, name in enumerate(("content", "style"))
    )
    return CardModels(
        scale, model, _clip(scale, drawn), tiny.tiny_vae(), LoRAPair(content, style, 1.0, 1.0)
    )


def _unet(scale: Scale, drawn: bool, device: torch.device) -> ModelPatcher:
    config = comfy.supported_models.SDXL(unet_config(scale))
    supported = config.supported_inference_dtypes
    dtype = comfy.model_management.unet_dtype(
        device=device, model_params=2_567_463_684, supported_dtypes=supported
    )
    config.set_inference_dtype(dtype, None)
    if scale.name == "tiny":
        return tiny.tiny_sdxl(dtype=dtype, device=device)

    first = config.get_model({}, device=torch.device("cpu")) if drawn else None
    if first is not None:
        initialise_unet(first.diffusion_model, tiny.PASS_THROUGH["eps"], seed=0)

    def load(disable_dynamic: bool = False) -> ModelPatcher:
        model = config.get_model({}, device=torch.device("cpu"))
        if first is not None:  # as fast as from a file
            model.load_state_dict(first.state_dict())
        patcher = ModelPatcher(model, load_device=device, offload_device=torch.device("cpu"))
        patcher.cached_patcher_init = (load, ())
        return patcher

    return load()


def _clip(scale: Scale, drawn: bool) -> comfy.sd.CLIP:
    """Build text encoders whose prompts fit the UNet."""
    if scale.name == "tiny":
        return tiny.tiny_clip()
    config = unet_config(scale)
    pooled = config["adm_in_channels"] - 6 * 256
    own = {
        "clip_l_model_config": _clip_config(config["context_dim"] - pooled, LAYERS[0]),
        "clip_g_model_config": _clip_config(pooled, LAYERS[1]),
    }
    clip = comfy.sd.CLIP(ClipTarget(SDXLTokenizer, SDXLClipModel), model_options=own)
    if drawn:
        initialise(clip.cond_stage_model, 0)
    return clip


def _clip_config(width: int, layers: int) -> dict[str, int]:
    heads = next(n for n in (20, 12, 8, 4, 2, 1) if width % n == 0)
    return {
        "hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": heads,
        "num_hidden_layers": layers, "projection_dim": width,
    }  # fmt: skip
