"""Tiny but real SDXL parts: UNet, text encoders, VAE, checkpoint and LoRAs.

Call `paths.use_comfyui()` before importing this.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import comfy.cldm.cldm
import comfy.lora
import comfy.model_base
import comfy.model_management
import comfy.sd
import comfy.supported_models
import comfy.utils
import safetensors.torch
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sdxl_clip import SDXLTokenizer
from comfy.supported_models_base import ClipTarget
from torch import Tensor

from .tiny_pack.models import CLIP_PREFIX, UNET_CONFIG, TinyClip, TinySDXL
from .tiny_weights import averaging_vae, initialise, initialise_unet

Prediction = Literal["eps", "v"]
StateDict = dict[str, Tensor]

ATTENTION = re.compile(r"\.attn[12]\.to_(q|k|v|out\.0)\.weight$")
SIGMAS = (0.3, 1.0, 3.0, 10.0)
PASS_THROUGH = {"eps": 0.9, "v": 0.0}
"""Share of the UNet's input in its prediction: v of Gaussian data is 0 on average."""


def tiny_sdxl(
    prediction: Prediction = "eps",
    zsnr: bool = False,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> ModelPatcher:
    """Build the tiny SDXL in this process, with the reload factory of a loader.

    It computes on ComfyUI's device unless `device` is given.
    """
    config = TinySDXL(UNET_CONFIG)
    config.set_inference_dtype(dtype, None if dtype == torch.float32 else torch.float32)
    model = config.get_model(prediction_keys(prediction, zsnr), device=torch.device("cpu"))
    initialise_unet(model.diffusion_model, PASS_THROUGH[prediction], seed)
    device = device or comfy.model_management.get_torch_device()
    patcher = ModelPatcher(model, load_device=device, offload_device=torch.device("cpu"))
    patcher.cached_patcher_init = (
        lambda disable_dynamic=False: tiny_sdxl(prediction, zsnr, seed, dtype, device),
        (),
    )
    return patcher


def tiny_clip(seed: int = 0) -> comfy.sd.CLIP:
    """Build the tiny text encoders."""
    target = ClipTarget(lambda **_: _tokenizer(), TinyClip)
    clip = comfy.sd.CLIP(target, model_options={"dtype": torch.float32})
    initialise(clip.cond_stage_model, seed)
    return clip


@cache
def _tokenizer() -> SDXLTokenizer:
    """Read SDXL's vocabulary once: it takes longer than the tiny encoders."""
    return SDXLTokenizer()


def tiny_vae() -> comfy.sd.VAE:
    """Build the VAE that averages 8 × 8 pixels."""
    return comfy.sd.VAE(sd=averaging_vae().state_dict())


def tiny_controlnet(seed: int = 0) -> StateDict:
    """Make a random ControlNet for the tiny UNet, in the format that `ControlNetLoader` reads."""
    own = {k: v for k, v in UNET_CONFIG.items() if k != "out_channels"}
    heads = {"num_heads": -1, "num_head_channels": 64}
    network = comfy.cldm.cldm.ControlNet(hint_channels=3, **own, **heads)
    initialise(network, seed)
    return network.state_dict()


def sdxl_meta() -> comfy.model_base.BaseModel:
    """Build the full-size SDXL without memory for its weights, for key maps and layer choices."""
    depths = {
        "transformer_depth_middle": 10,
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    }
    config = comfy.supported_models.SDXL(
        {**UNET_CONFIG, **comfy.supported_models.SDXL.unet_config, **depths}
    )
    config.set_inference_dtype(torch.float16, None)
    return config.get_model({}, device=torch.device("meta"))


def prediction_keys(prediction: Prediction, zsnr: bool) -> StateDict:
    """Make the empty tensors by which ComfyUI recognises v-prediction and zero terminal SNR."""
    names = ["v_pred"] * (prediction == "v") + ["ztsnr"] * zsnr
    return {name: torch.zeros(0) for name in names}


def save_tiny_checkpoint(
    path: Path, prediction: Prediction = "eps", zsnr: bool = False, seed: int = 0
) -> None:
    """Write MODEL, CLIP and VAE as one file that `CheckpointLoaderSimple` loads."""
    model, clip = tiny_sdxl(prediction, zsnr, seed), tiny_clip(seed)
    save_checkpoint(path, model, clip, prediction_keys(prediction, zsnr))


def save_checkpoint(
    path: Path, model: ModelPatcher, clip: comfy.sd.CLIP, others: Mapping[str, Tensor] | None = None
) -> None:
    """Write a MODEL and a CLIP with the tiny VAE, and `others`, as a checkpoint."""
    parts = {
        "model.diffusion_model.": model.model.diffusion_model,
        CLIP_PREFIX: clip.cond_stage_model,
        "first_stage_model.": averaging_vae(),
    }
    tensors = {
        prefix + name: tensor.half().contiguous()
        for prefix, module in parts.items()
        for name, tensor in module.state_dict().items()
    }
    safetensors.torch.save_file({**tensors, **(others or {})}, path)


def attention_linears(model: comfy.model_base.BaseModel) -> list[str]:
    """List the weight keys of the attention linears: 88 in the tiny SDXL, 560 in SDXL."""
    return [key for key in model.state_dict() if ATTENTION.search(key)]


def make_lora(
    model: ModelPatcher,
    clip: comfy.sd.CLIP,
    seed: int = 0,
    rank: int = 4,
    alpha: float | None = None,
    effect: float = 0.25,
    text_encoder: bool = False,
) -> StateDict:
    """Make a random LoRA of the attention linears, in kohya's format with sgm names.

    Args:
        alpha: None means the rank.
        effect: the relative rms change of the UNet's prediction, eps or v, at strength 1.
        text_encoder: also change the linears of both text encoders, by a tenth of their norm.
    """
    generator = torch.Generator().manual_seed(seed)
    alpha = float(rank if alpha is None else alpha)
    unet = {_kohya_name(key): key for key in attention_linears(model.model)}
    shapes = {name: tuple(model.get_model_object(key).shape) for name, key in unet.items()}
    unit = _random_factors(shapes, rank, alpha, generator)

    amplitude = effect
    for _ in range(5):
        amplitude *= effect / lora_effect(model, clip, _scaled(unit, amplitude))
    lora = _scaled(unit, float(f"{amplitude:.3g}"))

    if text_encoder:
        keys = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, {})
        weights = clip.cond_stage_model.state_dict()
        shapes = {
            name: tuple(weights[key].shape)
            for name, key in sorted(keys.items())
            if name.startswith(("lora_te1_text_model_enc", "lora_te2_text_model_enc"))
        }
        lora |= _scaled(_random_factors(shapes, rank, alpha, generator), 0.1)
    return lora


def lora_effect(model: ModelPatcher, clip: comfy.sd.CLIP, lora: Mapping[str, Tensor]) -> float:
    """Measure the relative rms change of the prediction by a LoRA in the stock loader."""
    unet = {key: tensor for key, tensor in lora.items() if key.startswith("lora_unet_")}
    patched, _ = comfy.sd.load_lora_for_models(model, None, unet, 1.0, 0.0)
    conditioning = clip.encode_from_tokens_scheduled(clip.tokenize("a photo of a dog"))
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    base, changed = (
        torch.cat([predict(m, noise * (1 + s * s) ** 0.5, s, conditioning) for s in SIGMAS])
        for m in (model, patched)
    )
    return float((changed - base).square().mean().sqrt() / base.square().mean().sqrt())


@torch.inference_mode()
def predict(model: ModelPatcher, x: Tensor, sigma: float, conditioning: list[list[Any]]) -> Tensor:
    """Return the model's own prediction, eps or v, for `x` `(b, 4, h, w)` at one sigma."""
    comfy.model_management.load_models_gpu([model], force_full_load=True)
    context, options = conditioning[0]
    device = model.load_device
    height, width = (8 * side for side in x.shape[-2:])
    adm = model.model.encode_adm(width=width, height=height, device=device, **options)
    denoised = model.model.apply_model(
        x.to(device),
        torch.full((len(x),), float(sigma), device=device),
        c_crossattn=context.expand(len(x), -1, -1).to(device),
        y=adm.expand(len(x), -1),
        transformer_options={},
    ).to(x.device)
    if model.model.model_type == comfy.model_base.ModelType.V_PREDICTION:
        return (x / (sigma**2 + 1) - denoised) * (sigma**2 + 1) ** 0.5 / sigma
    return (x - denoised) / sigma


def _kohya_name(key: str) -> str:
    return "lora_unet_" + key[len("diffusion_model.") : -len(".weight")].replace(".", "_")


def _random_factors(
    shapes: Mapping[str, tuple[int, ...]], rank: int, alpha: float, generator: torch.Generator
) -> StateDict:
    """Draw factors whose update is as large as a random weight of shape `(out, in)`."""
    tensors: StateDict = {}
    for name, (out_features, in_features) in shapes.items():
        down = torch.randn(rank, in_features, generator=generator) * in_features**-0.5
        up = torch.randn(out_features, rank, generator=generator) * rank**0.5 / alpha
        tensors |= {
            f"{name}.lora_down.weight": down,
            f"{name}.lora_up.weight": up,
            f"{name}.alpha": torch.tensor(alpha),
        }
    return tensors


def _scaled(lora: StateDict, amplitude: float) -> StateDict:
    return {k: v * amplitude if k.endswith("lora_up.weight") else v for k, v in lora.items()}
