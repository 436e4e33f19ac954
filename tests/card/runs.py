"""All trainers and solvers, called as their nodes do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ziplora_core.comfy_adapter.train import slider_tasks
from ziplora_core.comfy_adapter.train.dreambooth import train_dreambooth
from ziplora_core.comfy_adapter.train.dreambooth_inputs import TrainingInputs
from ziplora_core.comfy_adapter.train.sliders import train_slider
from ziplora_core.comfy_adapter.train.unziplora import train_unziplora
from ziplora_core.comfy_adapter.train.ziplora import train_ziplora
from ziplora_core.comfy_adapter.train.ziplora_inputs import Prompt
from ziplora_core.dreambooth.options import DreamBoothSettings
from ziplora_core.sliders.options import PairSliderSettings, TextSliderSettings
from ziplora_core.training.interface import ProgressCallbacks
from ziplora_core.training.options import TrainingOptions
from ziplora_core.unziplora.options import UnZipLoRASettings
from ziplora_core.ziplora.options import ZipLoRASettings

from .models import CardModels

Run = Callable[[CardModels, str, int, Path, ProgressCallbacks], Any]
"""A function of models, memory mode, number of steps (for the closed form, of calibration samples
per prompt), checkpoint folder and callbacks."""
OPTIONS = TrainingOptions(held_out_draws=2, sample_every=0, checkpoint_every=0, early_stop=False)
CONTENT, STYLE, JOINT = "a photo of sks dog", "a cat in wtc style", "sks dog in wtc style"


def _merge(solver: str) -> Run:
    def run(
        models: CardModels, memory: str, steps: int, folder: Path, callbacks: ProgressCallbacks
    ) -> Any:
        settings = ZipLoRASettings(
            solver=solver, steps=steps, width=models.pixels, height=models.pixels, memory=memory,
            options=OPTIONS, calibration_states=steps,
        )  # fmt: skip
        texts = {"content": CONTENT, "style": STYLE, "joint": JOINT}
        encode, tokens = models.clip.encode_from_tokens_scheduled, models.clip.tokenize
        prompts = [Prompt(name, encode(tokens(text))) for name, text in texts.items()]
        return train_ziplora(models.model, models.pair, prompts, settings, folder, callbacks)

    return run


def _dreambooth(prior: bool, text_encoder: bool) -> Run:
    def run(
        models: CardModels, memory: str, steps: int, folder: Path, callbacks: ProgressCallbacks
    ) -> Any:
        settings = DreamBoothSettings(
            prompt=CONTENT, class_prompt="a photo of a dog" if prior else "", steps=steps,
            rank=models.scale.rank, alpha=models.scale.rank, resolution=models.pixels,
            memory=memory, train_text_encoder=text_encoder, options=OPTIONS,
        )  # fmt: skip
        classes = [models.picture(1)] if prior else None
        images = [models.picture(0)]
        inputs = TrainingInputs(models.model, models.clip, models.vae, images, class_images=classes)
        return train_dreambooth(inputs, settings, folder, callbacks)

    return run


def _text_slider(trajectory: str) -> Run:
    def run(
        models: CardModels, memory: str, steps: int, folder: Path, callbacks: ProgressCallbacks
    ) -> Any:
        settings = TextSliderSettings(
            target="dog", positive="old dog", negative="young dog", steps=steps, memory=memory,
            resolution=min(512, models.pixels), trajectory=trajectory, options=OPTIONS,
        )  # fmt: skip
        inputs = slider_tasks.SliderInputs(models.model, models.clip, models.vae)
        return train_slider(inputs, slider_tasks.TextSliderTask(settings), folder, callbacks)

    return run


def _picture_slider(
    models: CardModels, memory: str, steps: int, folder: Path, callbacks: ProgressCallbacks
) -> Any:
    pixels = min(512, models.pixels)
    low, high = (models.picture(n)[:, :pixels, :pixels] for n in range(2))
    settings = PairSliderSettings(steps=steps, memory=memory, resolution=pixels, options=OPTIONS)
    level = slider_tasks.paired_pictures([low], [high], 1.0)
    inputs = slider_tasks.SliderInputs(models.model, models.clip, models.vae)
    return train_slider(
        inputs, slider_tasks.PictureSliderTask([level], settings), folder, callbacks
    )


def _unzip(
    models: CardModels, memory: str, steps: int, folder: Path, callbacks: ProgressCallbacks
) -> Any:
    settings = UnZipLoRASettings(
        JOINT, CONTENT, STYLE, rank=models.scale.rank, steps=max(steps, 2), sample_times=1,
        resolution=models.pixels, memory=memory, options=replace(OPTIONS, batch=1),
    )  # fmt: skip
    inputs = TrainingInputs(models.model, models.clip, models.vae, [models.picture(0)])
    return train_unziplora(inputs, settings, folder, callbacks)


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
