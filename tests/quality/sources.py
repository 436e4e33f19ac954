"""The LoRAs that are merged, trained by the pack's own DreamBooth session and kept."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from miniworld.parts import Parts
from miniworld.scenes import SIDE
from ziplora_core.comfy_adapter.train.dreambooth import train_dreambooth
from ziplora_core.comfy_adapter.train.dreambooth_inputs import TrainingInputs
from ziplora_core.dreambooth.options import DreamBoothSettings
from ziplora_core.lora.factors import LoRA, LoraFactors
from ziplora_core.training.options import TrainingOptions

from . import cache
from .subjects import CONTENT_CAPTIONS, Pair

RANK = 16
LAYERS = "extended"
"""Attention, feed-forward and ResNet convolutions: the miniature's finest attention sees 8 × 8
places, and LoRAs of attention alone learn neither subject nor style there."""
CONTENT_STEPS = 400
STYLE_STEPS = 150
LEARNING_RATE, STYLE_LEARNING_RATE = 1e-3, 3e-3
"""By two tuning pairs: a style at 1e-3 stays weak away from its own prompt, a subject at 2e-3 loses
its shape in other styles."""
BATCH = 4
OPTIONS = TrainingOptions(
    batch=BATCH, sample_every=0, checkpoint_every=0, early_stop=False, schedule="cosine"
)
TRAINER = cache.code(
    *(f"ziplora_core/{part}" for part in ("dreambooth", "lora", "training")),
    *(f"ziplora_core/comfy_adapter/{part}" for part in ("data", "model")),
    *(
        f"ziplora_core/comfy_adapter/train/{n}.py"
        for n in ("dreambooth", "dreambooth_inputs", "new_lora", "run")
    ),
)
"""The code that decides what a LoRA learns: others may change, and kept LoRAs stay."""


def content_lora(
    parts: Parts, pair: Pair, steps: int = CONTENT_STEPS, seed: int = 0, layers: str = LAYERS
) -> LoRA:
    pictures = pair.content_pictures()
    return LoRA("content", train(parts, pictures, CONTENT_CAPTIONS, steps, seed, layers))


def style_lora(
    parts: Parts, pair: Pair, steps: int = STYLE_STEPS, seed: int = 0, layers: str = LAYERS
) -> LoRA:
    pictures, prompts = pair.style_pictures(), [pair.style_prompt]
    modules = train(parts, pictures, prompts, steps, seed, layers, STYLE_LEARNING_RATE)
    return LoRA("style", modules)


def joint_lora(parts: Parts, pair: Pair, seed: int = 0) -> LoRA:
    """One LoRA on both sets, each with its identifier; the style's picture as often as all four."""
    style = pair.style_pictures().expand(4, -1, -1, -1)
    pictures = torch.cat([pair.content_pictures(), style])
    prompts = [*CONTENT_CAPTIONS, *[pair.style_prompt] * 4]
    return LoRA("joint", train(parts, pictures, prompts, CONTENT_STEPS + STYLE_STEPS, seed))


def train(
    parts: Parts,
    pictures: Tensor,
    captions: list[str],
    steps: int,
    seed: int,
    layers: str = LAYERS,
    learning_rate: float = LEARNING_RATE,
) -> Mapping[str, LoraFactors]:
    """Train a LoRA on pictures `(n, 3, 128, 128)`, or give the one trained so before."""
    settings = DreamBoothSettings(
        prompt=captions[0], layers=layers, rank=RANK, alpha=RANK, steps=steps,
        learning_rate=learning_rate, resolution=SIDE, seed=seed, memory="fast", options=OPTIONS,
    )  # fmt: skip
    inputs = TrainingInputs(parts.model, parts.clip, parts.vae, [pictures.movedim(1, -1)], captions)

    def make() -> cache.State:
        with tempfile.TemporaryDirectory() as folder:
            modules = train_dreambooth(inputs, settings, Path(folder)).modules
        return {name: {"down": f.down, "up": f.up, "alpha": f.alpha} for name, f in modules.items()}

    key = {"settings": settings, "pictures": pictures, "captions": captions, "code": TRAINER}
    kept = cache.cached("loras", key, make)
    return {name: LoraFactors(**factors) for name, factors in kept.items()}
