"""DreamBooth's objective for a LoRA, ready for the training loop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from .branches import Gates
from .framing import Framing
from .lora_objective import LoRAObjective, TrainerSettings
from .lora_parameters import LearnedLoRA
from .objective import mean_squared_error, min_snr_weight
from .options import DreamBoothSettings
from .states import DenoisingModel, State, draw_index, generator, predict

INSTANCE, PRIOR = "instance", "prior"
_HELD_OUT = 7  # a stream of draws of its own


@dataclass(frozen=True)
class View:
    """A picture as the VAE sees it: `mean` and `std` `(c, h, w)` of its latent, float32, CPU, in
    the model's own scale; x0 = mean + std · noise."""

    mean: Tensor
    std: Tensor
    frame: Framing


@dataclass(frozen=True)
class Example:
    """One training picture: its views (itself, its mirror image) and its caption."""

    views: tuple[View, ...]
    caption: str


class NoisingModel(DenoisingModel, Protocol):
    """A model that also knows its noise schedule and its own prediction space."""

    dtype: torch.dtype

    @property
    def v_prediction(self) -> bool: ...

    @property
    def timesteps(self) -> int: ...

    def noised(self, x0: Tensor, noise: Tensor, timestep: int) -> tuple[Tensor, Tensor, Tensor]:
        """Make x_t = x0 + σ·noise; returns it, σ `()` and the prediction that would be right, where
        the model computes."""
        ...


@dataclass(frozen=True)
class Draw:
    """A noisy picture with the caption it is shown with."""

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
    """Split a pass into batches of samples that are alike."""
    return [list(group) for _, group in groupby(sorted(draws, key=alike), alike)]


def batch_of(draw: Draw, low_memory: bool) -> tuple[Any, ...]:
    """What the samples of a batch have in common: their size; with low memory their term, too."""
    return (*draw.x.shape, draw.term if low_memory else "")


class PictureSettings(TrainerSettings, Protocol):
    """What learning from pictures asks of a node's settings."""

    @property
    def prior_weight(self) -> float: ...

    @property
    def seed(self) -> int: ...


Settings = TypeVar("Settings", bound=PictureSettings)


class PictureObjective(LoRAObjective[NoisingModel, Settings]):
    """L = MSE(instance) + w · MSE(class)    (Ruiz et al. 2023, arXiv:2208.12242, eq. 2)

    Each MSE is between the prediction and what was right, in the model's own space, float32, mean
    over the elements and then over the samples. A sample's draws depend on the seed and on its
    number alone: two passes of one sample are one pass of two.
    What a subclass brings, as its fields:
        model: with branches on it.
        instances: the pictures to learn.
        classes: pictures of the class, empty for no prior preservation.
        conditioner: encodes (caption, framing) pairs.
        settings: the node's.
    """

    model: NoisingModel
    instances: Sequence[Example]
    classes: Sequence[Example]
    conditioner: Callable[[Sequence[tuple[str, Framing]]], Sequence[Any]]
    settings: Settings

    @property
    def terms(self) -> int:
        return 2 if self.classes else 1

    @property
    def largest(self) -> list[int]:
        examples = (*self.instances, *self.classes)
        sizes = [list(view.mean.shape[1:]) for e in examples for view in e.views]
        return max(sizes, key=lambda hw: hw[0] * hw[1])

    def gates(self, draws: Sequence[Draw]) -> Gates:
        """How far the branches are open for each of these samples, and what they read."""
        del draws
        return Gates()

    def alike(self, draw: Draw) -> tuple[Any, ...]:
        """What the samples of a batch have in common."""
        return batch_of(draw, self.low_memory)

    def backward(self, step: int) -> dict[str, Tensor]:
        """Add the gradient of one step to the factors; returns the detached terms."""
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
        """Measure the instance error on fixed draws the training never sees; None without any.

        Args:
            branches: with what has been learned, not the model alone.
        """
        count = self.options.held_out_draws
        if count == 0:
            return None
        with torch.no_grad():
            self.fold()
            draws = [self._draw(self.instances, INSTANCE, i, _HELD_OUT) for i in range(count)]
            return float(torch.cat([self._errors([draw], branches) for draw in draws]).mean())

    def _draws(self, first: int) -> list[Draw]:
        """The samples of one pass, with as many class pictures as instances."""
        numbers = range(first, first + self.options.batch)
        draws = [self._draw(self.instances, INSTANCE, n) for n in numbers]
        if self.classes:
            draws += [self._draw(self.classes, PRIOR, n) for n in numbers]
        return draws

    def _draw(self, examples: Sequence[Example], term: str, number: int, stream: int = 0) -> Draw:
        """Draw sample `number`: picture, view, latent, timestep, noise and caption."""
        seed = self.settings.seed
        rng = generator(seed, stream, number, term == PRIOR)
        example = examples[draw_index(seed, len(examples), number)]
        view = example.views[int(torch.randint(len(example.views), (), generator=rng))]
        x0 = view.mean + view.std * torch.randn(view.mean.shape, generator=rng)
        timestep = int(torch.randint(self.model.timesteps, (), generator=rng))
        noise = torch.randn(x0.shape, generator=rng)
        dropped = float(torch.rand((), generator=rng)) < self.options.caption_dropout
        caption = "" if dropped else example.caption
        return Draw(*self.model.noised(x0, noise, timestep), caption, view.frame, term)

    def _errors(self, draws: Sequence[Draw], branches: bool = True) -> Tensor:
        """The weighted MSE of every sample, `(n,)`, from one batch."""
        conditioning = self.conditioner([(draw.caption, draw.frame) for draw in draws])
        states = [State(d.x, d.sigma, c) for d, c in zip(draws, conditioning, strict=True)]
        gates = self.gates(draws) if branches else None
        prediction = predict(self.model.denoise, states, gates)
        target = torch.stack([draw.target for draw in draws]).to(prediction)
        sigma = torch.stack([draw.sigma for draw in draws])
        weight = min_snr_weight(sigma, self.options.min_snr_gamma, self.model.v_prediction)
        return mean_squared_error(prediction, target) * weight.to(prediction)


@dataclass
class DreamBoothObjective(PictureObjective[DreamBoothSettings]):
    """DreamBooth's loss for one LoRA, and another one of the text encoders where they are trained.

    Args:
        model: with the branches of `lora` on it.
        lora: beside the diffusion model's layers.
        text_lora: beside the text encoders' layers; None when they are frozen.
        instances, classes, conditioner, settings: as above.
    """

    model: NoisingModel
    lora: LearnedLoRA
    text_lora: LearnedLoRA | None
    instances: Sequence[Example]
    classes: Sequence[Example]
    conditioner: Callable[[Sequence[tuple[str, Framing]]], Sequence[Any]]
    settings: DreamBoothSettings

    @property
    def networks(self) -> list[LearnedLoRA]:
        """The diffusion model's part, and the text encoders' if they are trained."""
        return [self.lora] + ([self.text_lora] if self.text_lora else [])

    def fold(self) -> None:
        """Put the present factors into the branches."""
        super().fold()
        if self.text_lora:
            self.text_lora.fold()


def most_common_frame(examples: Sequence[Example]) -> Framing:
    """The framing whose target most pictures have: so class pictures can share their batches."""
    targets = Counter(example.views[0].frame.target for example in examples)
    target, _ = targets.most_common(1)[0]
    return next(e.views[0].frame for e in examples if e.views[0].frame.target == target)
