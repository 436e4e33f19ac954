"""Our trainer, as TrainDreamBoothLoRA calls it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from sandbox import tiny
from ziplora_core.comfy_adapter.train.dreambooth import train_dreambooth
from ziplora_core.comfy_adapter.train.dreambooth_inputs import TrainingInputs
from ziplora_core.dreambooth.options import DreamBoothSettings
from ziplora_core.training.interface import ProgressCallbacks
from ziplora_core.training.options import TrainingOptions

from .task import PROMPT, Task


def train(task: Task, steps: int, on_step: Callable[[], None], layers: str, rank: int) -> None:
    """Train with all that the node does in a step, without its work before and after the steps."""
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
    inputs = TrainingInputs(tiny.tiny_sdxl(), task.clip, task.vae, [task.images])
    with tempfile.TemporaryDirectory() as folder:
        train_dreambooth(
            inputs, settings, Path(folder), ProgressCallbacks(on_step=lambda _record: on_step())
        )
