"""Helpers of tests with models of other families than SDXL's: LoRAs, the stock loader, pictures."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.sd
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from sandbox.families import FAMILIES, conditioning, latent_of
from ziplora_core.comfy_adapter.model import conditioning as cond
from ziplora_core.comfy_adapter.model.targets import unet_targets
from ziplora_core.files import lora_from_tensors
from ziplora_core.lora.layers import choose_layers
from ziplora_core.lora.pair import LoRAPair

SIDE = 64
StateDict = dict[str, Tensor]
every_family = pytest.mark.parametrize("family", FAMILIES)


def make_lora(model: ModelPatcher, seed: int, rank: int, size: float = 0.3) -> StateDict:
    """A random LoRA of the attention and feed-forward layers, as the family's files have it."""
    targets, weights = unet_targets(model.model), model.model.state_dict()
    generator = torch.Generator().manual_seed(seed)
    kernels = [(name, weights[key].ndim - 2) for name, key in targets.items()]
    tensors: StateDict = {}
    for name in choose_layers("attention_ff", kernels):
        out, width = weights[targets[name]].shape
        down = torch.randn(rank, width, generator=generator) * width**-0.5
        up = torch.randn(out, rank, generator=generator) * size * rank**-0.5
        tensors |= spelled(name, down, up, float(rank))
    return tensors


def spelled(name: str, down: Tensor, up: Tensor, alpha: float) -> StateDict:
    ends = ("lora_A", "lora_B") if "." in name else ("lora_down", "lora_up")
    factors = {f"{name}.{end}.weight": f for end, f in zip(ends, (down, up), strict=True)}
    return {**factors, f"{name}.alpha": torch.tensor(alpha)}


def make_pair(
    model: ModelPatcher, ranks: tuple[int, int] = (4, 3), size: float = 0.3
) -> tuple[LoRAPair, list[StateDict]]:
    tensors = [make_lora(model, seed, rank, size) for seed, rank in enumerate(ranks)]
    content, style = (
        lora_from_tensors(own, name=f"{role}.safetensors")
        for role, own in zip(("content", "style"), tensors, strict=True)
    )
    return LoRAPair(content, style), tensors


def stock(model: ModelPatcher, *loras: StateDict) -> ModelPatcher:
    for tensors in loras:
        model, _ = comfy.sd.load_lora_for_models(model, None, tensors, 1.0, 0.0)
    return model


def predict(model: ModelPatcher, family: str) -> Tensor:
    """The model's picture without noise, at a middle noise level."""
    sigma = model.model.model_sampling.sigma(torch.tensor([500.0]))
    return predict_at(model, conditioning(family), latent_of(model), sigma)


@torch.no_grad()
def predict_at(model: ModelPatcher, prompt: Any, x: Tensor, sigma: Tensor) -> Tensor:
    """The model's picture without noise, of a noisy latent at its noise level."""
    comfy.model_management.load_models_gpu([model], force_full_load=True)
    x, sigma = x.to(model.load_device), sigma.to(model.load_device)
    parts = cond.batch([cond.prepare(model.model, prompt, x)])
    return model.model.apply_model(x, sigma, transformer_options={}, **parts)


def far(got: Tensor, want: Tensor) -> float:
    return float((got - want).abs().max() / want.std())
