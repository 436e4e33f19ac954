"""Noisy samples with the teacher's predictions, on which the student is trained and measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from .branches import Gates
from .losses import mean_squared_error

Teacher = tuple[float, float]
"""The gates of content and style in the teacher: one LoRA alone, or both."""
TEACHERS: tuple[Teacher, ...] = ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0))
"""The teachers at the content's, the style's and the joint prompt."""


class Denoise(Protocol):
    """The interface to a diffusion model."""

    def __call__(
        self, x: Tensor, sigma: Tensor, conditioning: Sequence[Any], gates: Gates | None
    ) -> Tensor:
        """Return the model's prediction in its own space (eps or v), float32.

        Args:
            x: noisy latents `(b, c, h, w)`, x_t = x0 + σ·noise.
            sigma: noise levels `(b,)`.
            conditioning: one prepared conditioning per sample.
            gates: gates of the branches; None to leave out all branches.
        """
        ...


class DenoisingModel(Protocol):
    """A model with branches; with `checkpointing`, it keeps the activations of one block only."""

    checkpointing: bool
    denoise: Denoise


@dataclass(frozen=True)
class NoisySample:
    """A noisy latent `(c, h, w)` at noise level `sigma` `()`, with the teacher's prediction."""

    x: Tensor
    sigma: Tensor
    conditioning: Any
    target: Tensor | None = None


def predict(denoise: Denoise, samples: Sequence[NoisySample], gates: Gates | None) -> Tensor:
    """Run the model on samples of equal size, as one batch."""
    x = torch.stack([sample.x for sample in samples])
    sigma = torch.stack([sample.sigma for sample in samples])
    return denoise(x, sigma, [sample.conditioning for sample in samples], gates)


def stackable(*groups: Sequence[NoisySample]) -> bool:
    """Return whether all samples have the same size, so that they can share a batch."""
    return len({sample.x.shape for group in groups for sample in group}) <= 1


def with_targets(
    denoise: Denoise, samples: Sequence[NoisySample], teacher: Teacher, batch: int
) -> list[NoisySample]:
    """Compute every sample's target with the teacher: the LoRAs as gated, columns of one."""
    done: list[NoisySample] = []
    row = torch.tensor(teacher)
    with torch.no_grad():
        for group in batches(samples, batch):
            target = predict(denoise, group, Gates(row.expand(len(group), -1), learned=False))
            done += [
                NoisySample(s.x, s.sigma, s.conditioning, t)
                for s, t in zip(group, target, strict=True)
            ]
    return done


def retention(denoise: Denoise, samples: Sequence[NoisySample], batch: int) -> float:
    """Compute the mean squared difference between the merge's predictions and the targets."""
    return float(prediction_errors(denoise, samples, batch).mean())


def prediction_errors(denoise: Denoise, samples: Sequence[NoisySample], batch: int) -> Tensor:
    """Compute each sample's mean squared difference from its target, float32 `(samples,)`."""
    errors = []
    with torch.no_grad():
        for group in batches(samples, batch):
            prediction = predict(denoise, group, Gates())
            target = torch.stack([s.target for s in group if s.target is not None])
            errors.append(mean_squared_error(prediction, target))
    return torch.cat(errors)


def batches(samples: Sequence[NoisySample], batch: int) -> list[list[NoisySample]]:
    """Split samples into batches of at most `batch` consecutive ones of equal size."""
    groups: list[list[NoisySample]] = []
    for sample in samples:
        if groups and len(groups[-1]) < batch and stackable(groups[-1], [sample]):
            groups[-1].append(sample)
        else:
            groups.append([sample])
    return groups
