"""Our trainer, as TrainDreamBoothLoRA calls it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from sandbox import tiny
from ziplora_core.comfy_adapter.dreambooth_inputs import Studio
from ziplora_core.comfy_adapter.dreambooth_session import train_dreambooth
from ziplora_core.options import DreamBoothSettings, TrainingOptions
from ziplora_core.trainable import Watch

from .task import PROMPT, Task


def train(task: Task, steps: int, on_step: Callable[[], None], layers: str, rank: int) -> None:
    """Train with what the node does at every step, and without what it does around them."""
    settings = DreamBoothSettings(
        PROMPT,
        layers=layers,
        rank=rank,
        alpha=rank,
        steps=steps,
        resolution=task.images.shape[1],
        memory="fast",
        options=TrainingOptions(batch=task.batch, held_out_draws=0, sample_every=0),
    )
    studio = Studio(tiny.tiny_sdxl(), task.clip, task.vae, [task.images])
    with tempfile.TemporaryDirectory() as folder:
        train_dreambooth(studio, settings, Path(folder), Watch(on_step=lambda _record: on_step()))
