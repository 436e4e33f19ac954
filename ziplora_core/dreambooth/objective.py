"""DreamBooth's objective for the training loop, and the base class of objectives on pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from ..training.branches import Gates
from ..training.framing import Framing
from ..training.lora_objective import LoRAObjective, TrainerSettings
from ..training.lora_parameters import LearnedLoRA
from ..training.losses import mean_squared_error, min_snr_weight
from ..training.noisy_samples import DenoisingModel, NoisySample, predict
from ..training.random import Stream, draw_index, generator
from .options import DreamBoothSettings

INSTANCE, PRIOR = "instance", "prior"


@dataclass(frozen=True)
class View:
    """The latent distribution of a picture, from the VAE: x0 = mean + std · noise.

    `mean` and `std` are `(c, [1,] h, w)`, float32, on the CPU, in the model's own scale.
    """

    mean: Tensor
    std: Tensor
    frame: Framing


@dataclass(frozen=True)
class TrainingExample:
    """A training picture: its views (the picture, and optionally its mirror image) and caption."""

    views: tuple[View, ...]
    caption: str


class NoisingModel(DenoisingModel, Protocol):
    """A model with a known noise schedule and prediction space."""

    dtype: torch.dtype

    @property
    def v_prediction(self) -> bool: ...

    @property
    def flow(self) -> bool: ...

    def draw_timestep(self, rng: torch.Generator) -> int:
        """Draw the timestep of a sample."""
        ...

    def noised(self, x0: Tensor, noise: Tensor, timestep: int) -> tuple[Tensor, Tensor, Tensor]:
        """Compute x_t = x0 + σ·noise.

        Returns:
            x_t, σ `()` and the target of the prediction, on the model's device.
        """
        ...


@dataclass(frozen=True)
class Draw:
    """A noisy picture, its target and its caption."""

    x: Tensor
    sigma: Tensor
    target: Tensor
    caption: str
    frame: Framing
    term: str


AnyDraw = TypeVar("AnyDraw", bound=Draw)


def in_batches(
    draws: Sequence[AnyDraw], alike: Callable[[AnyDraw], tuple[Any, ...]]
) -> list[list[AnyDraw]]:
    """Split the samples of a pass into batches of equal `alike` keys."""
    return [list(group) for _, group in groupby(sorted(draws, key=alike), alike)]


def batch_of(draw: Draw, low_memory: bool) -> tuple[Any, ...]:
    """Return the batch key of a sample: its size, and with low memory also its loss term."""
    return (*draw.x.shape, draw.term if low_memory else "")


class PictureSettings(TrainerSettings, Protocol):
    """The settings that every training on pictures has."""

    @property
    def resolution(self) -> int: ...

    @property
    def prior_weight(self) -> float: ...

    @property
    def seed(self) -> int: ...


Settings = TypeVar("Settings", bound=PictureSettings)


class PictureObjective(LoRAObjective[NoisingModel, Settings]):
    """The DreamBooth loss with prior preservation (Ruiz et al. 2023, arXiv:2208.12242, eq. 2).

        L = MSE(instance) + w · MSE(class)

    Each MSE is between prediction and target in the model's own space, float32, a mean over the
    elements and then over the samples. The draws of a sample depend on the seed and its number
    alone, so that two passes of one sample equal one pass of two.

    Subclasses have these fields:
        model: a model with branches on it.
        instances: the pictures to learn.
        classes: the class pictures, empty for no prior preservation.
        conditioner: an encoder of (caption, framing) pairs.
        settings: the settings of the node.
    """

    model: NoisingModel
    instances: Sequence[TrainingExample]
    classes: Sequence[TrainingExample]
    conditioner: Callable[[Sequence[tuple[str, Framing]]], Sequence[Any]]
    settings: Settings

    @property
    def terms(self) -> int:
        return 2 if self.classes else 1

    @property
    def largest(self) -> list[int]:
        examples = (*self.instances, *self.classes)
        sizes = [list(view.mean.shape[-2:]) for e in examples for view in e.views]
        return max(sizes, key=lambda hw: hw[0] * hw[1])

    def gates(self, draws: Sequence[Draw]) -> Gates:
        """Return the gates of the branches for these samples, and the prompts they read."""
        del draws
        return Gates()

    def alike(self, draw: Draw) -> tuple[Any, ...]:
        """Return the batch key of a sample."""
        return batch_of(draw, self.low_memory)

    def backward(self, step: int) -> dict[str, Tensor]:
        """Add the gradient of one step to the factors and return the detached terms."""
        samples = self.options.batch * self.options.accumulation
        weights = {INSTANCE: 1.0, PRIOR: self.settings.prior_weight}
        terms = {
            term: torch.zeros((), device=self.parameters[0].device)
            for term in ([INSTANCE, PRIOR] if self.classes else [INSTANCE])
        }
        for part in range(self.options.accumulation):
            first = step * samples + part * self.options.batch
            for group in in_batches(self._draws(first), self.alike):
                self.fold()
                errors = self._errors(group)
                each = [(draw.term, error) for draw, error in zip(group, errors, strict=True)]
                total = torch.stack([weights[term] * error for term, error in each]).sum()
                (total / samples).backward()
                for term, error in each:
                    terms[term] += error.detach() / samples
        loss = sum(weights[term] * value for term, value in terms.items())
        return {"loss": torch.as_tensor(loss), **terms}

    def held_out(self, branches: bool = True) -> float | None:
        """Compute the instance error on fixed draws that training never uses; None without any.

        Args:
            branches: whether the LoRA is on; False measures the model alone.
        """
        count = self.options.held_out_draws
        if count == 0:
            return None
        with torch.no_grad():
            self.fold()
            draws = [self._draw(self.instances, INSTANCE, i, Stream.HELD_OUT) for i in range(count)]
            return float(torch.cat([self._errors([draw], branches) for draw in draws]).mean())

    def _draws(self, first: int) -> list[Draw]:
        """Draw the samples of one pass, with as many class pictures as instances."""
        numbers = range(first, first + self.options.batch)
        draws = [self._draw(self.instances, INSTANCE, n) for n in numbers]
        if self.classes:
            draws += [self._draw(self.classes, PRIOR, n) for n in numbers]
        return draws

    def _draw(
        self,
        examples: Sequence[TrainingExample],
        term: str,
        number: int,
        stream: Stream = Stream.TRAINING,
    ) -> Draw:
        """Draw sample `number`: picture, view, latent, timestep, noise and caption."""
        seed = self.settings.seed
        rng = generator(seed, stream, number, term == PRIOR)
        example = examples[draw_index(seed, len(examples), number)]
        view = example.views[int(torch.randint(len(example.views), (), generator=rng))]
        x0 = view.mean + view.std * torch.randn(view.mean.shape, generator=rng)
        timestep = self.model.draw_timestep(rng)
        noise = torch.randn(x0.shape, generator=rng)
        dropped = float(torch.rand((), generator=rng)) < self.options.caption_dropout
        caption = "" if dropped else example.caption
        return Draw(*self.model.noised(x0, noise, timestep), caption, view.frame, term)

    def _errors(self, draws: Sequence[Draw], branches: bool = True) -> Tensor:
        """Compute the weighted MSE `(n,)` of each sample in one batch."""
        conditioning = self.conditioner([(draw.caption, draw.frame) for draw in draws])
        states = [NoisySample(d.x, d.sigma, c) for d, c in zip(draws, conditioning, strict=True)]
        gates = self.gates(draws) if branches else None
        prediction = predict(self.model.denoise, states, gates)
        target = torch.stack([draw.target for draw in draws]).to(prediction)
        sigma = torch.stack([draw.sigma for draw in draws])
        gamma = 0.0 if self.model.flow else self.options.min_snr_gamma  # it is for ε and v
        weight = min_snr_weight(sigma, gamma, self.model.v_prediction)
        return mean_squared_error(prediction, target) * weight.to(prediction)


@dataclass
class DreamBoothObjective(PictureObjective[DreamBoothSettings]):
    """DreamBooth's loss for a LoRA of the diffusion model and optionally one of the text encoders.

    Args:
        model: a model with the branches of `lora` on it.
        lora: the LoRA of the diffusion model.
        text_lora: the LoRA of the text encoders; None when they are frozen.
        instances, classes, conditioner, settings: see `PictureObjective`.
    """

    model: NoisingModel
    lora: LearnedLoRA
    text_lora: LearnedLoRA | None
    instances: Sequence[TrainingExample]
    classes: Sequence[TrainingExample]
    conditioner: Callable[[Sequence[tuple[str, Framing]]], Sequence[Any]]
    settings: DreamBoothSettings

    @property
    def networks(self) -> list[LearnedLoRA]:
        """The LoRA of the diffusion model, and that of the text encoders if they are trained."""
        return [self.lora] + ([self.text_lora] if self.text_lora else [])

    def fold(self) -> None:
        """Put the current factors into the branches."""
        super().fold()
        if self.text_lora:
            self.text_lora.fold()


def most_common_frame(examples: Sequence[TrainingExample]) -> Framing:
    """Return the framing with the most common target size, so that class pictures share batches."""
    targets = Counter(example.views[0].frame.target for example in examples)
    target, _ = targets.most_common(1)[0]
    return next(e.views[0].frame for e in examples if e.views[0].frame.target == target)
