"""The task of all contenders: a model, a slider in mid-training, prompts, a picture pair."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ziplora_core.comfy_adapter.model import conditioning as cond
from ziplora_core.comfy_adapter.model.targets import unet_targets
from ziplora_core.comfy_adapter.model.training_model import TrainingModel, training_model
from ziplora_core.comfy_adapter.train.new_lora import new_lora
from ziplora_core.dreambooth.objective import View
from ziplora_core.sliders.options import PairSliderSettings, TextSliderSettings
from ziplora_core.sliders.picture_objective import PairSliderObjective, PicturePair
from ziplora_core.sliders.text_objective import Concept, TextSliderObjective
from ziplora_core.training.framing import Framing
from ziplora_core.training.lora_parameters import LearnedLoRA
from ziplora_core.training.noisy_samples import NoisySample, predict
from ziplora_core.training.random import generator

from ..engine.models import Scale, make_model, random_prompt, unet_config

RANK, ALPHA = 4, 1.0
"""The public implementation's; its layers (noxattn) are the settings' default, too."""
SCALE = 2.0
"""Distance of the two pictures from the middle."""


class Counter:
    """Counts a sample's UNet evaluations: forward, backward, and recomputed forward passes.

    A backward pass through a frozen model computes only gradients of activations. It costs about as
    much as a forward pass, and counts as one.
    """

    def __init__(self, opened: TrainingModel) -> None:
        self.opened, self.seen = opened, 0
        self.total = 0
        opened.on_evaluation = self

    def __call__(self, evaluations: int) -> None:
        passes = 1
        if torch.is_grad_enabled():
            passes = 3 if self.opened.checkpointing else 2
        self.total += passes * (evaluations - self.seen)
        self.seen = evaluations


@dataclass(frozen=True)
class Task:
    """One size, ready to run.

    Args:
        opened: the model, with the slider's branches on it.
        keys: weight key by kohya name.
        prompts: target, positive, negative and neutral.
        pair: the picture pair.
    """

    scale: Scale
    opened: TrainingModel
    lora: LearnedLoRA
    keys: Mapping[str, str]
    prompts: Concept
    pair: PicturePair
    counter: Counter = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "counter", Counter(self.opened))

    def describe(self) -> str:
        """Return a description of the size."""
        unet = self.opened.model.diffusion_model
        count = sum(parameter.numel() for parameter in unet.parameters())
        return (
            f"{self.scale.name}: {count / 1e6:,.0f} M parameters, {len(self.lora.branches)} "
            f"modules (noxattn), latents {self.scale.latent} × {self.scale.latent}, rank {RANK}, "
            f"{str(self.opened.dtype).removeprefix('torch.')}"
        )

    def words(self, trajectory: str) -> TextSliderObjective:
        """Return the objective on prompts, at learning rate 0: all turns do the same work."""
        side = self.scale.latent
        settings = TextSliderSettings(
            learning_rate=0.0, rank=RANK, alpha=ALPHA, trajectory=trajectory
        )
        return TextSliderObjective(
            self.opened, self.lora, [self.prompts], (4, side, side), settings
        )

    def pictures(self) -> PairSliderObjective:
        """Return the objective on the picture pair, at learning rate 0."""
        prompts = {"low": self.prompts.neutral, "high": self.prompts.positive}
        settings = PairSliderSettings(
            learning_rate=0.0, rank=RANK, alpha=ALPHA, positive="high", neutral="low"
        )
        return PairSliderObjective(
            self.opened, self.lora, [self.pair],
            lambda asked: [prompts[caption] for caption, _ in asked], settings,
        )  # fmt: skip

    @torch.no_grad()
    def base(self, _n: int) -> None:
        """Run the UNet without branches on a batch of two, which is two units."""
        x = self.pair.low.mean.to(self.opened.device)
        sigma = torch.ones((), device=self.opened.device)
        prompts = (self.prompts.negative, self.prompts.target)
        predict(self.opened.denoised, [NoisySample(x, sigma, prompt) for prompt in prompts], None)


@contextmanager
def open_task(scale: Scale) -> Iterator[Task]:
    """Build the model, a slider in mid-training, random prompts and a random picture pair."""
    model, rng = make_model(scale), generator(0)
    targets = unet_targets(model.model)
    settings = TextSliderSettings(rank=RANK, alpha=ALPHA)
    lora = new_lora(model, targets, settings.layers, settings)
    with torch.no_grad():
        lora.parameters.flat += 0.02 * torch.randn(lora.parameters.flat.shape, generator=rng).to(
            lora.parameters.flat.device
        )
    keys = {name: targets[name] for name in lora.branches}
    shape = (4, scale.latent, scale.latent)
    low, high = (_view(torch.randn(shape, generator=rng)) for _ in range(2))
    with training_model(model, lora.by_weight(targets)) as opened:
        like = torch.zeros(1, *shape, device=opened.device)
        config = unet_config(scale)
        prompts = Concept(
            *(cond.prepare(opened.model, random_prompt(config, seed), like) for seed in range(4))
        )
        yield Task(scale, opened, lora, keys, prompts, PicturePair(low, high, SCALE))


def _view(mean: Tensor) -> View:
    height, width = (8 * side for side in mean.shape[1:])
    return View(mean, torch.full_like(mean, 0.1), Framing.drawn(height, width))
