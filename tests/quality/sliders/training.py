"""The sliders, trained by the pack's own session as its nodes train them."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from miniworld.parts import Parts
from miniworld.scenes import SIDE
from ziplora_core.comfy_adapter.train.slider_tasks import (
    PictureSliderTask,
    SliderInputs,
    SliderTask,
    TextSliderTask,
    paired_pictures,
)
from ziplora_core.comfy_adapter.train.sliders import train_slider
from ziplora_core.lora.factors import LoRA
from ziplora_core.sliders.options import PairSliderSettings, TextSliderSettings
from ziplora_core.training.options import TrainingOptions

from .attributes import Attribute

OPTIONS = TrainingOptions(sample_every=0, checkpoint_every=0, early_stop=False, schedule="cosine")
TARGET = "a shape"
"""The class word."""
STYLES = ("sunset plain", "desert striped", "ice plain", "berry dotted")
PRESERVE = [f"in {style} style" for style in STYLES]
"""Put before the prompts in turn: a slider must not change the style."""
WORDS = TextSliderSettings(
    target=TARGET, guidance=4.0, rank=4, alpha=4.0, steps=240, learning_rate=1.2e-4,
    resolution=SIDE, trajectory="reused", memory="fast", options=OPTIONS,
    preserve="\n".join(PRESERVE),
)  # fmt: skip
LEVELS = (1.0, 2.0)
"""Scales that there are pictures of; without the second one the ends are a guess."""
PICTURES = PairSliderSettings(
    rank=4, alpha=4.0, steps=400, resolution=SIDE, memory="fast",
    options=replace(OPTIONS, batch=8), positive=TARGET, neutral=TARGET,
)  # fmt: skip


def from_words(parts: Parts, attribute: Attribute, settings: TextSliderSettings = WORDS) -> LoRA:
    """Train a slider from the attribute's words."""
    less, more = attribute.edited(TARGET)
    settings = replace(settings, positive=more, negative=less)
    return _train(parts, TextSliderTask(settings))


def from_pictures(
    parts: Parts, attribute: Attribute, settings: PairSliderSettings = PICTURES
) -> LoRA:
    """Train a slider from pictures before and after, all shown with the same words."""
    settings = replace(settings, learning_rate=attribute.learning_rate)
    levels = []
    for scale in LEVELS:
        low, high = attribute.pictures(scale)
        levels.append(paired_pictures([low], [high], scale))
    return _train(parts, PictureSliderTask(levels, settings))


def _train(parts: Parts, task: SliderTask) -> LoRA:
    inputs = SliderInputs(parts.model, parts.clip, parts.vae)
    with tempfile.TemporaryDirectory() as folder:
        result = train_slider(inputs, task, Path(folder))
    return LoRA("slider", result.modules, result.metadata)
