"""The task of all contenders: a model, two LoRAs in mid-training, a picture, three prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from sandbox.unziplora_reference import UnZipLoRALinear, unziplora_linears
from ziplora_core.comfy_adapter.model import conditioning as cond
from ziplora_core.comfy_adapter.model.targets import unet_targets
from ziplora_core.comfy_adapter.model.training_model import TrainingModel, training_model
from ziplora_core.comfy_adapter.train.new_lora import layer_shapes
from ziplora_core.dreambooth.objective import TrainingExample, View
from ziplora_core.training.framing import Framing
from ziplora_core.training.noisy_samples import NoisySample, predict
from ziplora_core.training.options import TrainingOptions
from ziplora_core.training.random import generator
from ziplora_core.unziplora.feature_masks import FeatureMasks, owners
from ziplora_core.unziplora.objective import UnZipLoRAObjective
from ziplora_core.unziplora.options import UnZipLoRASettings
from ziplora_core.unziplora.parameters import UnZipLoRAParameters

from ..engine.models import Scale, make_model, random_prompt, unet_config

JOINT, CONTENT, STYLE = "joint", "content", "style"
CHOICES = 2
"""Number of choices of features so far; they have chosen a fifth of them."""


@dataclass(frozen=True)
class Task:
    """One size, ready to run.

    Args:
        opened: the model, with both LoRAs' branches on it.
        objective: the objective, with masks as after two choices.
        keys: weight key by kohya name.
        contexts: prompts of content and style, `(2, token, width)`.
        state: a noisy sample with the joint prompt and its target.
    """

    scale: Scale
    opened: TrainingModel
    objective: UnZipLoRAObjective
    keys: Mapping[str, str]
    contexts: Tensor
    state: NoisySample

    def describe(self) -> str:
        """Return a description of the size."""
        unet = self.opened.model.diffusion_model
        count = sum(parameter.numel() for parameter in unet.parameters())
        side, rank = self.scale.latent, self.scale.rank
        return (
            f"{self.scale.name}: {count / 1e6:,.0f} M parameters, {len(self.keys)} attention "
            f"linears, latents {side} × {side}, rank {rank} + {rank}, "
            f"{str(self.opened.dtype).removeprefix('torch.')}"
        )

    def dense(self) -> dict[str, UnZipLoRALinear]:
        """Return the public implementation's layers with the same factors, mergers and masks."""
        learned, masks = self.objective.learned, self.objective.masks
        with torch.no_grad():
            halves = [half.factors() for half in learned.halves]
            return unziplora_linears(halves, learned.mergers.by_module(), masks.by_module())

    @torch.no_grad()
    def base(self, _n: int) -> None:
        """Run the UNet without branches on a batch of two, which is two units."""
        predict(self.opened.denoised, [self.state] * 2, None)


@contextmanager
def open_task(scale: Scale) -> Iterator[Task]:
    """Build the model, both LoRAs with a fifth of their features, a picture and prompts."""
    model, rng = make_model(scale), generator(0)
    targets = unet_targets(model.model)
    shapes = layer_shapes(model, targets, "attention", scale.rank)
    learned = UnZipLoRAParameters(shapes, scale.rank, seed=0)
    masks = FeatureMasks(learned.heights, owners(shapes), model.load_device)
    scores = {
        name: torch.rand(2, height, generator=rng) for name, height in learned.heights.items()
    }
    masks.extend(scores, 0.1 * CHOICES, disjoint=False)
    settings = UnZipLoRASettings(
        JOINT, CONTENT, STYLE, rank=scale.rank, content_learning_rate=0.0, style_learning_rate=0.0,
        weight_learning_rate=0.0, alone_share=0.0,
        options=TrainingOptions(held_out_draws=0),
    )  # fmt: skip
    side = 8 * scale.latent
    shape = (4, scale.latent, scale.latent)
    view = View(
        torch.randn(shape, generator=rng), torch.full(shape, 0.1), Framing.drawn(side, side)
    )
    encoded = [random_prompt(unet_config(scale), seed) for seed in range(3)]
    hooked = {targets[name]: branches for name, branches in learned.branches.items()}
    with training_model(model, hooked) as opened:
        like = torch.zeros(1, *shape, device=opened.device)
        joint = cond.prepare(opened.model, encoded[0], like)
        contexts = cond.own_prompts(encoded[1:], encoded[0]).to(opened.device, opened.dtype)
        objective = UnZipLoRAObjective(
            model=opened,
            learned=learned,
            masks=masks,
            instances=[TrainingExample((view,), JOINT)],
            classes=[],
            conditioner=lambda asked: [joint for _ in asked],
            prompts={JOINT: contexts},
            settings=settings,
        )
        noise = torch.randn(shape, generator=rng)
        x, sigma, target = opened.noised(view.mean, noise, opened.timesteps // 2)
        state = NoisySample(x.to(opened.device), sigma.to(opened.device), joint, target)
        keys = {name: targets[name] for name in shapes}
        yield Task(scale, opened, objective, keys, contexts, state)
