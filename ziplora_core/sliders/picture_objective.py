"""The objective of Concept Sliders from picture pairs, for the training loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..dreambooth.objective import Draw, NoisingModel, View, batch_of, in_batches
from ..training.branches import Gates
from ..training.framing import Framing
from ..training.lora_objective import LoRAObjective
from ..training.lora_parameters import LearnedLoRA
from ..training.losses import mean_squared_error, min_snr_weight
from ..training.noisy_samples import NoisySample, predict
from ..training.random import draw_index, generator
from .options import PairSliderSettings

LOW, HIGH = "low", "high"


@dataclass(frozen=True)
class PicturePair:
    """Two pictures of one subject with less and with more of an attribute, at ∓`scale`."""

    low: View
    high: View
    scale: float


@dataclass(frozen=True)
class _Half(Draw):
    """A noisy picture of a pair and the slider scale that it is trained at."""

    gate: float


@dataclass
class PairSliderObjective(LoRAObjective[NoisingModel, PairSliderSettings]):
    """The loss of Concept Sliders on picture pairs (arXiv:2311.12092, eq. 9).

        L = MSE( ε_{−s}(x_low), ε ) + MSE( ε_{+s}(x_high), ε )

    ε_s is the model with the slider at scale s. Both pictures of a pair share the timestep and the
    noise, including that of the VAE, so that only the attribute differs. Pictures of one size go
    through the model as one batch.

    Args:
        model: a model with the slider's branches on it.
        lora: the slider.
        pairs: the picture pairs.
        conditioner: an encoder of (caption, framing) pairs.
        settings: the widgets of the node.
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
        sizes = [list(pair.low.mean.shape[-2:]) for pair in self.pairs]
        return max(sizes, key=lambda hw: hw[0] * hw[1])

    def backward(self, step: int) -> dict[str, Tensor]:
        """Add the gradient of one step to the factors and return the detached terms."""
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
        timestep = self.model.draw_timestep(rng)
        halves = []
        for term, view, sign, caption in (
            (LOW, pair.low, -1.0, self.settings.neutral),
            (HIGH, pair.high, 1.0, self.settings.positive),
        ):
            noisy = self.model.noised(view.mean + view.std * spread, noise, timestep)
            halves.append(_Half(*noisy, caption, view.frame, term, sign * pair.scale))
        return halves

    def _errors(self, halves: Sequence[_Half]) -> Tensor:
        """Compute the weighted MSE `(n,)` of each picture in one batch."""
        conditioning = self.conditioner([(half.caption, half.frame) for half in halves])
        states = [NoisySample(h.x, h.sigma, c) for h, c in zip(halves, conditioning, strict=True)]
        gates = Gates(torch.tensor([[half.gate] for half in halves]))
        prediction = predict(self.model.denoise, states, gates)
        target = torch.stack([half.target for half in halves]).to(prediction)
        sigma = torch.stack([half.sigma for half in halves])
        gamma = 0.0 if self.model.flow else self.options.min_snr_gamma  # it is for ε and v
        weight = min_snr_weight(sigma, gamma, self.model.v_prediction)
        return mean_squared_error(prediction, target) * weight.to(prediction)
