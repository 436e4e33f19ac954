"""Helpers of the in-process tests: LoRAs of the tiny SDXL, prompts, the stock loader."""

from __future__ import annotations

from functools import cache
from typing import Any

import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from sandbox import tiny
from ziplora_core.comfy_adapter.model import conditioning as cond
from ziplora_core.comfy_adapter.model.pair_on_model import pair_on_model
from ziplora_core.comfy_adapter.model.targets import unet_targets
from ziplora_core.comfy_adapter.model.training_model import TrainingModel
from ziplora_core.files import lora_from_tensors
from ziplora_core.lora.pair import LoRAPair
from ziplora_core.training.branches import Branches

Conditioning = list[list[Any]]
StateDict = dict[str, Tensor]


@cache
def lora_tensors() -> tuple[StateDict, StateDict]:
    """A content LoRA of rank 8 and a style LoRA of rank 4, each changing the prediction by 25 %."""
    model, clip = tiny.tiny_sdxl(), tiny.tiny_clip()
    return (
        tiny.make_lora(model, clip, seed=1, rank=8, alpha=4.0),
        tiny.make_lora(model, clip, seed=2, rank=4),
    )


def lora_pair(content_strength: float = 1.0, style_strength: float = 1.0) -> LoRAPair:
    content, style = lora_tensors()
    return LoRAPair(
        lora_from_tensors(content, name="content.safetensors"),
        lora_from_tensors(style, name="style.safetensors"),
        content_strength,
        style_strength,
    )


def branches_of(model: ModelPatcher, pair: LoRAPair) -> dict[str, Branches]:
    """Return the pair's branches by weight key."""
    pairs, _ = pair_on_model(pair, model.model)
    targets = unet_targets(model.model)
    return {targets[name]: Branches(p.factors) for name, p in pairs.items()}


def encode(clip: comfy.sd.CLIP, text: str) -> Conditioning:
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def prompts(clip: comfy.sd.CLIP) -> tuple[Conditioning, Conditioning]:
    return encode(clip, "a photo of sks dog"), encode(clip, "a cat in watercolor style")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def prepared(
    opened: TrainingModel, conditionings: tuple[Conditioning, ...], latent: Tensor
) -> list[cond.Conditioning]:
    return [cond.prepare(opened.model, c, latent[:1]) for c in conditionings]


def stock(model: ModelPatcher, *loras: tuple[StateDict, float]) -> ModelPatcher:
    """Chain ComfyUI's own LoRA loader."""
    for tensors, strength in loras:
        model, _ = comfy.sd.load_lora_for_models(model, None, tensors, strength, 0.0)
    return model


def relative(got: Tensor, want: Tensor) -> float:
    """Return the largest difference, relative to the rms of `want`."""
    return float((got - want).abs().max() / want.square().mean().sqrt())


def assert_untouched(model: ModelPatcher, before: dict[str, torch.Tensor]) -> None:
    """Assert that the MODEL is bit-identical and that no hooks or forwards are left on it."""
    after = model.model.state_dict()
    assert all(torch.equal(after[key], weight) for key, weight in before.items())
    modules = list(model.model.modules())
    assert not any(module._forward_hooks for module in modules)
    assert not any("forward" in module.__dict__ for module in modules)
    assert model.injections == {} and not model.is_injected
