"""Every trainer and solver as its node calls it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ziplora_core.comfy_adapter import slider_lessons as lessons
from ziplora_core.comfy_adapter.dreambooth_inputs import Studio as Inputs
from ziplora_core.comfy_adapter.dreambooth_session import train_dreambooth
from ziplora_core.comfy_adapter.slider_session import train_slider
from ziplora_core.comfy_adapter.unzip_session import train_unzip
from ziplora_core.comfy_adapter.zip_inputs import Prompt
from ziplora_core.comfy_adapter.zip_session import optimise
from ziplora_core.options import (
    DreamBoothSettings,
    PairSliderSettings,
    TextSliderSettings,
    TrainingOptions,
    UnZipSettings,
    ZipSettings,
)
from ziplora_core.trainable import Watch

from .studio import Studio

Run = Callable[[Studio, str, int, Path, Watch], Any]
"""Trains in a memory mode, so many steps (the closed form looks at so many states of each prompt),
with checkpoints in a folder, followed by a watch."""
OPTIONS = TrainingOptions(held_out_draws=2, sample_every=0, checkpoint_every=0, early_stop=False)
CONTENT, STYLE, JOINT = "a photo of sks dog", "a cat in wtc style", "sks dog in wtc style"


def _merge(solver: str) -> Run:
    def run(studio: Studio, memory: str, steps: int, folder: Path, watch: Watch) -> Any:
        settings = ZipSettings(
            solver=solver, steps=steps, width=studio.pixels, height=studio.pixels, memory=memory,
            options=OPTIONS, calibration_states=steps,
        )  # fmt: skip
        texts = {"content": CONTENT, "style": STYLE, "joint": JOINT}
        encode, tokens = studio.clip.encode_from_tokens_scheduled, studio.clip.tokenize
        prompts = [Prompt(name, encode(tokens(text))) for name, text in texts.items()]
        return optimise(studio.model, studio.pair, prompts, settings, folder, watch)

    return run


def _dreambooth(prior: bool, text_encoder: bool) -> Run:
    def run(studio: Studio, memory: str, steps: int, folder: Path, watch: Watch) -> Any:
        settings = DreamBoothSettings(
            prompt=CONTENT, class_prompt="a photo of a dog" if prior else "", steps=steps,
            rank=studio.scale.rank, alpha=studio.scale.rank, resolution=studio.pixels,
            memory=memory, train_text_encoder=text_encoder, options=OPTIONS,
        )  # fmt: skip
        classes = [studio.picture(1)] if prior else None
        images = [studio.picture(0)]
        inputs = Inputs(studio.model, studio.clip, studio.vae, images, class_images=classes)
        return train_dreambooth(inputs, settings, folder, watch)

    return run


def _text_slider(trajectory: str) -> Run:
    def run(studio: Studio, memory: str, steps: int, folder: Path, watch: Watch) -> Any:
        settings = TextSliderSettings(
            target="dog", positive="old dog", negative="young dog", steps=steps, memory=memory,
            resolution=min(512, studio.pixels), trajectory=trajectory, options=OPTIONS,
        )  # fmt: skip
        inputs = lessons.SliderStudio(studio.model, studio.clip, studio.vae)
        return train_slider(inputs, lessons.TextLesson(settings), folder, watch)

    return run


def _picture_slider(studio: Studio, memory: str, steps: int, folder: Path, watch: Watch) -> Any:
    pixels = min(512, studio.pixels)
    low, high = (studio.picture(n)[:, :pixels, :pixels] for n in range(2))
    settings = PairSliderSettings(steps=steps, memory=memory, resolution=pixels, options=OPTIONS)
    level = lessons.paired_pictures([low], [high], 1.0)
    inputs = lessons.SliderStudio(studio.model, studio.clip, studio.vae)
    return train_slider(inputs, lessons.PairLesson([level], settings), folder, watch)


def _unzip(studio: Studio, memory: str, steps: int, folder: Path, watch: Watch) -> Any:
    settings = UnZipSettings(
        JOINT, CONTENT, STYLE, rank=studio.scale.rank, steps=max(steps, 2), sample_times=1,
        resolution=studio.pixels, memory=memory, options=replace(OPTIONS, batch=1),
    )  # fmt: skip
    inputs = Inputs(studio.model, studio.clip, studio.vae, [studio.picture(0)])
    return train_unzip(inputs, settings, folder, watch)


RUNS: dict[str, Run] = {
    "ZipLoRA Optimize, closed form": _merge("closed_form"),
    "ZipLoRA Optimize, Adam": _merge("adam"),
    "Train DreamBooth LoRA": _dreambooth(prior=False, text_encoder=False),
    "Train DreamBooth LoRA, prior": _dreambooth(prior=True, text_encoder=False),
    "Train DreamBooth LoRA, prior, text encoders": _dreambooth(prior=True, text_encoder=True),
    "Train Concept Slider, exact": _text_slider("exact"),
    "Train Concept Slider, reused": _text_slider("reused"),
    "Train Slider from Images": _picture_slider,
    "UnZipLoRA Train": _unzip,
}
