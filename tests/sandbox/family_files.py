"""Write tiny models of other families under the names that the shipped workflows use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from safetensors.torch import save_file
from torch import Tensor

from .families import tiny_family, vae_weights

LOADABLE: dict[str, dict[str, Any]] = {
    "FLUX.1": {
        "hidden_size": 128, "num_heads": 1, "axes_dim": [16, 56, 56], "depth": 1,
        "depth_single_blocks": 1,
    },
    "Z-Image": {},
    "Qwen-Image": {},
}  # fmt: skip
"""Families whose tiny model ComfyUI's own loader takes, with the sizes that it needs for that."""
MODELS = {
    "FLUX.1": "flux1-dev.safetensors",
    "Z-Image": "z_image_turbo_bf16.safetensors",
    "Qwen-Image": "qwen_image_fp8_e4m3fn.safetensors",
}
VAES = {"FLUX.1": "ae.safetensors", "Qwen-Image": "qwen_image_vae.safetensors"}
LORAS = {
    "FLUX.1": ("my_flux_subject.safetensors", "my_flux_style.safetensors"),
    "Z-Image": ("my_z_image_subject.safetensors", "my_z_image_style.safetensors"),
    "Qwen-Image": ("my_qwen_image_subject.safetensors", "my_qwen_image_style.safetensors"),
}
RANK = 4


def write_families(models: Path) -> None:
    """Write each model, its VAE and two LoRAs, always with the same bytes."""
    for folder in ("diffusion_models", "vae", "loras"):
        (models / folder).mkdir(parents=True, exist_ok=True)
    for family, name in MODELS.items():
        model = save_model(family, models / "diffusion_models" / name)
        for seed, lora in enumerate(LORAS[family], start=1):
            save_file(attention_lora(model, seed), models / "loras" / lora)
    for family, name in VAES.items():
        save_file(whole(vae_weights(family)), models / "vae" / name)


def save_model(family: str, path: Path, seed: int = 0) -> ModelPatcher:
    """Write the tiny model of one of `LOADABLE` for Load Diffusion Model; return it."""
    model = tiny_family(family, seed, LOADABLE[family])
    save_file(whole(model.model.diffusion_model.state_dict()), path)
    return model


def attention_lora(model: ModelPatcher, seed: int) -> dict[str, Tensor]:
    """Draw a LoRA of every linear of attention, with the network's own names."""
    generator, tensors = torch.Generator().manual_seed(seed), {}
    for key, weight in model.model.diffusion_model.state_dict().items():
        module, _, kind = key.rpartition(".")
        if kind == "weight" and weight.ndim == 2 and ("attn" in module or "attention" in module):
            out, width = weight.shape
            down = torch.randn(RANK, width, generator=generator) * width**-0.5
            up = torch.randn(out, RANK, generator=generator) * 0.3 * RANK**-0.5
            tensors[f"diffusion_model.{module}.lora_A.weight"] = down
            tensors[f"diffusion_model.{module}.lora_B.weight"] = up
    return tensors


def whole(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor.contiguous() for key, tensor in tensors.items()}
