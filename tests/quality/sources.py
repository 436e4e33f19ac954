"""The LoRAs that are merged, trained by the pack's own DreamBooth session."""

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

from .subjects import CONTENT_PROMPT, Pair

RANK = 16
LAYERS = "extended"
"""Attention, feed-forward and ResNet convolutions: the miniature's finest attention sees 8 × 8
places of 64 channels, and LoRAs of attention alone learn neither subject nor style there."""
CONTENT_STEPS = 400
STYLE_STEPS = 150
LEARNING_RATE = 1e-3
BATCH = 4
OPTIONS = TrainingOptions(
    batch=BATCH, sample_every=0, checkpoint_every=0, early_stop=False, schedule="cosine"
)


def content_lora(parts: Parts, pair: Pair, steps: int = CONTENT_STEPS, seed: int = 0) -> LoRA:
    modules = train(parts, pair.content_pictures(), [CONTENT_PROMPT] * 4, steps, seed)
    return LoRA("content", modules)


def style_lora(parts: Parts, pair: Pair, steps: int = STYLE_STEPS, seed: int = 0) -> LoRA:
    modules = train(parts, pair.style_pictures(), [pair.style_prompt], steps, seed)
    return LoRA("style", modules)


def joint_lora(parts: Parts, pair: Pair, seed: int = 0) -> LoRA:
    """One LoRA on both sets, each with its identifier; the style's picture as often as all four."""
    style = pair.style_pictures().expand(4, -1, -1, -1)
    pictures = torch.cat([pair.content_pictures(), style])
    prompts = [CONTENT_PROMPT] * 4 + [pair.style_prompt] * 4
    return LoRA("joint", train(parts, pictures, prompts, CONTENT_STEPS + STYLE_STEPS, seed))


def train(
    parts: Parts, pictures: Tensor, captions: list[str], steps: int, seed: int
) -> Mapping[str, LoraFactors]:
    """Train a LoRA on pictures `(n, 3, 128, 128)`."""
    settings = DreamBoothSettings(
        prompt=captions[0], layers=LAYERS, rank=RANK, alpha=RANK, steps=steps,
        learning_rate=LEARNING_RATE, resolution=SIDE, seed=seed, memory="fast", options=OPTIONS,
    )  # fmt: skip
    inputs = TrainingInputs(parts.model, parts.clip, parts.vae, [pictures.movedim(1, -1)], captions)
    with tempfile.TemporaryDirectory() as folder:
        return train_dreambooth(inputs, settings, Path(folder)).modules
