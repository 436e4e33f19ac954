"""UnZipLoRA's objective on the tiny SDXL, for the tests against the transcription."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ziplora_core.comfy_adapter import conditioning as cond
from ziplora_core.comfy_adapter.captions import Conditioner, encode_captions
from ziplora_core.comfy_adapter.new_lora import layer_shapes
from ziplora_core.comfy_adapter.targets import unet_targets
from ziplora_core.comfy_adapter.training_model import training_model
from ziplora_core.dreambooth import Example
from ziplora_core.options import UnZipSettings
from ziplora_core.unzip import UnZipObjective
from ziplora_core.unzip_columns import Columns, owners
from ziplora_core.unzip_parameters import UnZipParameters

from . import helpers

TEXTS = ("a monadikos cat in sketch style", "a monadikos cat", "a cat in sketch style")


@contextmanager
def opened_unzip(
    model: ModelPatcher, clip: comfy.sd.CLIP, settings: UnZipSettings, shown: Sequence[Example]
) -> Iterator[tuple[UnZipObjective, dict[str, Any], list[tuple[Tensor, Tensor, int]]]]:
    """Open the objective as the session does; gives what was encoded and will be drawn, too."""
    targets = unet_targets(model.model)
    shapes = layer_shapes(model, targets, "attention", settings.rank)
    learned = UnZipParameters(shapes, settings.rank, settings.seed)
    texts = (settings.prompt, settings.content_prompt, settings.style_prompt)
    encoded = encode_captions(clip, texts, model.model)
    joint, *own = (encoded[text] for text in texts)
    hooked = {targets[name]: branches for name, branches in learned.branches.items()}
    with training_model(model, hooked) as opened:
        task = UnZipObjective(
            model=opened,
            learned=learned,
            columns=Columns(learned.heights, owners(shapes), "cpu"),
            instances=shown,
            classes=[],
            conditioner=Conditioner(opened.model, encoded.__getitem__, True, opened.device),
            prompts={settings.prompt: cond.own_prompts(own, joint)},
            settings=settings,
        )
        drawn: list[tuple[Tensor, Tensor, int]] = []
        noised = opened.noised

        def recorded(x0: Tensor, noise: Tensor, timestep: int) -> tuple[Tensor, Tensor, Tensor]:
            drawn.append((x0, noise, timestep))
            return noised(x0, noise, timestep)

        opened.noised = recorded
        yield task, encoded, drawn


def closed(task: UnZipObjective) -> None:
    """Choose some features by hand, and give the mergers values: the midst of a training."""
    scores = {
        name: helpers.noise(2, out, seed=n).abs()
        for n, (name, out) in enumerate(task.learned.heights.items())
    }
    task.columns.extend(scores, 0.3, disjoint=False)
    with torch.no_grad():
        flat = task.learned.mergers.flat
        flat.copy_(1 - 0.9 * helpers.noise(len(flat), seed=3).abs().clamp(max=1))
    task.after_step()
