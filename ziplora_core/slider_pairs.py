"""Concept Sliders from before/after pictures: their objective, ready for the training loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .branches import Gates
from .dreambooth import Draw, NoisingModel, View, batch_of, in_batches
from .framing import Framing
from .lora_objective import LoRAObjective
from .lora_parameters import LearnedLoRA
from .objective import mean_squared_error, min_snr_weight
from .options import PairSliderSettings
from .states import State, draw_index, generator, predict

LOW, HIGH = "low", "high"


@dataclass(frozen=True)
class PicturePair:
    """The same thing with less and with more of an attribute, `scale` from the middle each."""

    low: View
    high: View
    scale: float


@dataclass(frozen=True)
class _Half(Draw):
    """A noisy picture of a pair, and the slider's position that explains it."""

    gate: float


@dataclass
class PairSliderObjective(LoRAObjective[NoisingModel, PairSliderSettings]):
    """L = MSE( ε_{−s}(x_low), ε ) + MSE( ε_{+s}(x_high), ε )    (arXiv:2311.12092, eq. 9)

    ε_s is the model with the slider at s. Both pictures of a pair share the timestep and the noise,
    also the VAE's, so that only the attribute differs; pictures of one size go through the model as
    one batch.

    Args:
        model: with the slider's branches on it.
        lora: the slider.
        pairs: the pictures.
        conditioner: encodes (caption, framing) pairs.
        settings: the node's.
    """

    model: NoisingModel
    lora: LearnedLoRA
    pairs: Sequence[PicturePair]
    conditioner: Callable[[Sequence[tuple[str, Framing]]], Sequence[Any]]
    settings: PairSliderSettings

    @property
    def terms(self) -> int:
        return 2

    @property
    def largest(self) -> list[int]:
        sizes = [list(pair.low.mean.shape[1:]) for pair in self.pairs]
        return max(sizes, key=lambda hw: hw[0] * hw[1])

    def backward(self, step: int) -> dict[str, Tensor]:
        """Add the gradient of one step to the factors; returns the detached terms."""
        samples = self.options.batch * self.options.accumulation
        device = self.lora.parameters.flat.device
        terms = {term: torch.zeros((), device=device) for term in (LOW, HIGH)}
        for first in range(step * samples, (step + 1) * samples, self.options.batch):
            halves = [h for n in range(first, first + self.options.batch) for h in self.draw(n)]
            for group in in_batches(halves, lambda half: batch_of(half, self.low_memory)):
                self.fold()
                errors = self._errors(group) / samples
                errors.sum().backward()
                for half, error in zip(group, errors.detach(), strict=True):
                    terms[half.term] += error
        return {"loss": terms[LOW] + terms[HIGH], **terms}

    def draw(self, number: int) -> list[_Half]:
        """Draw sample `number`: pair, VAE noise, timestep and noise, the same for both pictures."""
        seed = self.settings.seed
        rng = generator(seed, number)
        pair = self.pairs[draw_index(seed, len(self.pairs), number)]
        spread = torch.randn(pair.low.mean.shape, generator=rng)
        noise = torch.randn(pair.low.mean.shape, generator=rng)
        timestep = int(torch.randint(self.model.timesteps, (), generator=rng))
        halves = []
        for term, view, sign, caption in (
            (LOW, pair.low, -1.0, self.settings.neutral),
            (HIGH, pair.high, 1.0, self.settings.positive),
        ):
            noisy = self.model.noised(view.mean + view.std * spread, noise, timestep)
            halves.append(_Half(*noisy, caption, view.frame, term, sign * pair.scale))
        return halves

    def _errors(self, halves: Sequence[_Half]) -> Tensor:
        """The weighted MSE of every picture, `(n,)`, from one batch."""
        conditioning = self.conditioner([(half.caption, half.frame) for half in halves])
        states = [State(h.x, h.sigma, c) for h, c in zip(halves, conditioning, strict=True)]
        gates = Gates(torch.tensor([[half.gate] for half in halves]))
        prediction = predict(self.model.denoise, states, gates)
        target = torch.stack([half.target for half in halves]).to(prediction)
        sigma = torch.stack([half.sigma for half in halves])
        weight = min_snr_weight(sigma, self.options.min_snr_gamma, self.model.v_prediction)
        return mean_squared_error(prediction, target) * weight.to(prediction)
