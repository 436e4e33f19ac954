"""UnZipLoRA's objective on the tiny SDXL, for the tests against the transcription."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ziplora_core.comfy_adapter.data.caption_encoding import Conditioner, encode_captions
from ziplora_core.comfy_adapter.model import conditioning as cond
from ziplora_core.comfy_adapter.model.targets import unet_targets
from ziplora_core.comfy_adapter.model.training_model import training_model
from ziplora_core.comfy_adapter.train.new_lora import layer_shapes
from ziplora_core.dreambooth.objective import TrainingExample
from ziplora_core.unziplora.feature_masks import FeatureMasks, owners
from ziplora_core.unziplora.objective import UnZipLoRAObjective
from ziplora_core.unziplora.options import UnZipLoRASettings
from ziplora_core.unziplora.parameters import UnZipLoRAParameters

from .. import helpers

TEXTS = ("a monadikos cat in sketch style", "a monadikos cat", "a cat in sketch style")


@contextmanager
def opened_unziplora(
    model: ModelPatcher,
    clip: comfy.sd.CLIP,
    settings: UnZipLoRASettings,
    shown: Sequence[TrainingExample],
) -> Iterator[tuple[UnZipLoRAObjective, dict[str, Any], list[tuple[Tensor, Tensor, int]]]]:
    """Open the objective as the session does; yield its encoded inputs and draws, too."""
    targets = unet_targets(model.model)
    shapes = layer_shapes(model, targets, "attention", settings.rank)
    learned = UnZipLoRAParameters(shapes, settings.rank, settings.seed)
    texts = (settings.prompt, settings.content_prompt, settings.style_prompt)
    encoded = encode_captions(clip, texts, model.model)
    joint, *own = (encoded[text] for text in texts)
    hooked = {targets[name]: branches for name, branches in learned.branches.items()}
    with training_model(model, hooked) as opened:
        task = UnZipLoRAObjective(
            model=opened,
            learned=learned,
            masks=FeatureMasks(learned.heights, owners(shapes), "cpu"),
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


def closed(task: UnZipLoRAObjective) -> None:
    """Choose some features by hand and set the mergers, as in mid-training."""
    scores = {
        name: helpers.noise(2, out, seed=n).abs()
        for n, (name, out) in enumerate(task.learned.heights.items())
    }
    task.masks.extend(scores, 0.3, disjoint=False)
    with torch.no_grad():
        flat = task.learned.mergers.flat
        flat.copy_(1 - 0.9 * helpers.noise(len(flat), seed=3).abs().clamp(max=1))
    task.after_step()
