"""Noisy states with their teacher's prediction: what the student is compared on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from .branches import Gates
from .objective import mean_squared_error

Teacher = tuple[float, float]
"""Who is to be matched, by the gates of content and style: one LoRA alone, or both."""
TEACHERS: tuple[Teacher, ...] = ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0))
"""At the content's, the style's and the joint prompt."""


class Denoise(Protocol):
    """The one boundary to a diffusion model."""

    def __call__(
        self, x: Tensor, sigma: Tensor, conditioning: Sequence[Any], gates: Gates | None
    ) -> Tensor:
        """Predict in the model's own space (eps or v), float32.

        Args:
            x: noisy latents `(b, c, h, w)`, x_t = x0 + σ·noise.
            sigma: `(b,)`.
            conditioning: one prepared conditioning per sample.
            gates: how far each branch is open for each sample; None: no branches at all.
        """
        ...


class DenoisingModel(Protocol):
    """A model with branches on it; while `checkpointing`, it keeps one block's activations."""

    checkpointing: bool
    denoise: Denoise


@dataclass(frozen=True)
class State:
    """One noisy latent `(c, h, w)` at `sigma` `()`, and what the teacher predicts there."""

    x: Tensor
    sigma: Tensor
    conditioning: Any
    target: Tensor | None = None


def generator(*seed: int) -> torch.Generator:
    """Make a generator for one purpose: equal numbers, equal draws; any other number, other draws.

    Randomness that depends on (seed, step) alone has no state, so that a resumed run draws what
    the run that never stopped would have drawn.
    """
    mixed = 0
    for number in seed:
        mixed = (mixed * 6364136223846793005 + number + 1442695040888963407) % 2**63
    return torch.Generator().manual_seed(mixed)


def draw_timesteps(count: int, timesteps: int, rng: torch.Generator) -> Tensor:
    """Draw `count` timesteps, uniform on 0…timesteps−1 and stratified: one in each n-th part."""
    place = (torch.arange(count) + torch.rand(count, generator=rng)) / count
    drawn = (place[torch.randperm(count, generator=rng)] * timesteps).long()
    return drawn.clamp(max=timesteps - 1)  # float32 may round up to `timesteps`


def draw_index(seed: int, count: int, draw: int) -> int:
    """Pick the state of a draw: every epoch visits each of `count` states once, in a new order."""
    epoch, place = divmod(draw, count)
    return int(torch.randperm(count, generator=generator(seed, epoch))[place])


def predict(denoise: Denoise, states: Sequence[State], gates: Gates | None) -> Tensor:
    """Call the model on a list of states of one size, as one batch."""
    x = torch.stack([state.x for state in states])
    sigma = torch.stack([state.sigma for state in states])
    return denoise(x, sigma, [state.conditioning for state in states], gates)


def stackable(*groups: Sequence[State]) -> bool:
    """Whether all states have one size, so that they can share a batch."""
    return len({state.x.shape for group in groups for state in group}) <= 1


def with_targets(
    denoise: Denoise, states: Sequence[State], teacher: Teacher, batch: int
) -> list[State]:
    """Ask the teacher (the LoRAs as gated, columns one) for every state's target."""
    done: list[State] = []
    row = torch.tensor(teacher)
    with torch.no_grad():
        for group in batches(states, batch):
            target = predict(denoise, group, Gates(row.expand(len(group), -1), learned=False))
            done += [
                State(s.x, s.sigma, s.conditioning, t) for s, t in zip(group, target, strict=True)
            ]
    return done


def retention(denoise: Denoise, states: Sequence[State], batch: int) -> float:
    """Mean squared difference between the merged and the teacher's predictions (DESIGN §4)."""
    errors = []
    with torch.no_grad():
        for group in batches(states, batch):
            prediction = predict(denoise, group, Gates())
            target = torch.stack([s.target for s in group if s.target is not None])
            errors.append(mean_squared_error(prediction, target))
    return float(torch.cat(errors).mean())


def batches(states: Sequence[State], batch: int) -> list[list[State]]:
    """Cut into batches of at most `batch` neighbours of one size."""
    groups: list[list[State]] = []
    for state in states:
        if groups and len(groups[-1]) < batch and stackable(groups[-1], [state]):
            groups[-1].append(state)
        else:
            groups.append([state])
    return groups
