"""DreamBooth objectives on the tiny SDXL, for the tests against independent references."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ziplora_core.comfy_adapter.data.caption_encoding import Conditioner, encode_captions
from ziplora_core.comfy_adapter.model.targets import unet_targets
from ziplora_core.comfy_adapter.model.trainable_text_encoder import (
    text_encoder_targets,
    trainable_text_encoder,
)
from ziplora_core.comfy_adapter.model.training_model import training_model
from ziplora_core.comfy_adapter.train.new_lora import new_lora
from ziplora_core.dreambooth.objective import DreamBoothObjective, TrainingExample, View
from ziplora_core.dreambooth.options import DreamBoothSettings
from ziplora_core.lora.factors import LoraFactors
from ziplora_core.training.framing import Framing
from ziplora_core.training.lora_parameters import LoRAParameters

from .. import helpers

CAPTIONS = ("a photo of sks dog", "sks dog on a sofa, at night", "a photo of a dog")


@dataclass
class Opened:
    """An objective, and its draws: latents, noise and timesteps."""

    task: DreamBoothObjective
    encoded: dict[str, Any]
    drawn: list[tuple[Tensor, Tensor, int]] = field(default_factory=list)

    def gradients(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Split the gradient as the factors are."""
        grad = self.task.lora.parameters.flat.grad
        assert grad is not None
        return split(self.task.lora.parameters, grad)


def split(lora: LoRAParameters, flat: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    pieces, at = {}, 0
    for name, (down, up) in lora.shapes.items():
        sizes = [torch.Size(down).numel(), torch.Size(up).numel()]
        parts = flat[at : at + sum(sizes)].split(sizes)
        pieces[name] = (parts[0].view(down), parts[1].view(up))
        at += sum(sizes)
    return pieces


def example(seed: int, frame: Framing, caption: str, std: float = 0.0) -> TrainingExample:
    """Return a random picture in latent space."""
    mean = helpers.noise(4, *(side // 8 for side in frame.target), seed=seed)
    return TrainingExample((View(mean, torch.full_like(mean, std), frame),), caption)


def started(lora: LoRAParameters, seed: int = 5) -> dict[str, LoraFactors]:
    """Set the factors to values of a LoRA in mid-training; return them."""
    with torch.no_grad():
        for name, (down, up) in split(lora, lora.flat).items():
            down.copy_(helpers.noise(*down.shape, seed=seed) / down.shape[1] ** 0.5)
            up.copy_(helpers.noise(*up.shape, seed=seed + len(name)) / 10)
    return lora.detached()


@contextmanager
def opened_task(
    model: ModelPatcher,
    clip: comfy.sd.CLIP,
    settings: DreamBoothSettings,
    instances: Sequence[TrainingExample],
    classes: Sequence[TrainingExample] = (),
) -> Iterator[Opened]:
    """Open the objective as the session does, with the factors in mid-training."""
    targets = unet_targets(model.model)
    lora = new_lora(model, targets, settings.layers, settings)
    started(lora.parameters)
    captions = {e.caption for e in (*instances, *classes)} | {""}
    encoded = encode_captions(clip, captions, model.model)
    encode, text_lora, keep_loaded = encoded.__getitem__, None, []
    with ExitStack() as stack:
        if settings.train_text_encoder:
            text_targets = text_encoder_targets(clip)
            text_lora = new_lora(clip.patcher, text_targets, "all", settings)
            started(text_lora.parameters)
            hooked = text_lora.by_weight(text_targets)
            encoder = stack.enter_context(trainable_text_encoder(clip, hooked))
            encode, keep_loaded = encoder.encode, [encoder.patcher]
        hooked = lora.by_weight(targets)
        opened = stack.enter_context(training_model(model, hooked, keep_loaded=keep_loaded))
        conditioner = Conditioner(opened.model, encode, not text_lora, opened.device)
        task = DreamBoothObjective(
            opened, lora, text_lora, instances, classes, conditioner, settings
        )
        result = Opened(task, encoded)
        noised = opened.noised

        def recorded(x0: Tensor, noise: Tensor, timestep: int) -> tuple[Tensor, Tensor, Tensor]:
            result.drawn.append((x0, noise, timestep))
            return noised(x0, noise, timestep)

        opened.noised = recorded
        yield result
