"""The objective of Concept Sliders from prompts, for the training loop."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from ..training.branches import Gates
from ..training.lora_objective import LoRAObjective
from ..training.lora_parameters import LearnedLoRA
from ..training.losses import mean_squared_error, min_snr_weight
from ..training.noisy_samples import Denoise
from ..training.random import draw_index, generator
from ..training.saved_state import Layout
from .options import TextSliderSettings

DENOISING_STEPS = 50
"""DDIM steps of a full trajectory; a training step uses the latent after 1 … 49 of them."""
GUIDANCE = 3.0
"""Guidance scale of the trajectory, which is denoised with the slider on."""
SHARED = 8
"""Updates per trajectory with trajectory=reused."""
_BUFFER = "trajectory"


@dataclass(frozen=True)
class Concept:
    """The prompts of one slider: texts from `concepts`, conditionings in the objective."""

    target: Any
    positive: Any
    negative: Any
    neutral: Any


def concepts(settings: TextSliderSettings) -> list[Concept]:
    """Compose a slider's prompts, once for each preserved concept.

    The sum over preserved concepts p (arXiv:2311.12092, eq. 8) becomes a draw of one p per sample,
    put before all four prompts, as in the public implementation.
    """
    target, positive = settings.target.strip(), settings.positive.strip()
    prompts = (target, positive or target, settings.negative.strip())
    prompts = (*prompts, settings.neutral.strip() or target)
    preserved = [line.strip() for line in settings.preserve.splitlines() if line.strip()]
    return [Concept(*(f"{p} {text}".strip() for text in prompts)) for p in preserved or [""]]


class SliderModel(Protocol):
    """A model with a noise schedule and x0 predictions, so that it can draw."""

    checkpointing: bool
    dtype: torch.dtype
    denoise: Denoise

    @property
    def v_prediction(self) -> bool: ...

    @property
    def sigmas(self) -> Tensor:
        """σ of every timestep, rising, on the CPU."""
        ...

    @property
    def flow(self) -> bool: ...

    def pure_noise(self, noise: Tensor, sigma: float) -> Tensor:
        """Return x_t at the highest noise level, without any picture in it."""
        ...

    def place(self, tensor: Tensor) -> Tensor:
        """Put a tensor on the model's device."""
        ...

    def denoised(
        self, x: Tensor, sigma: Tensor, conditioning: Sequence[Any], gates: Gates | None
    ) -> Tensor:
        """Predict x0 in float32; with gates None the slider is off."""
        ...


@dataclass
class TextSliderObjective(LoRAObjective[SliderModel, TextSliderSettings]):
    """The loss of Concept Sliders on prompts (arXiv:2311.12092, eq. 6 and 7).

        L = MSE( ε*(x_t, target), ε(x_t, neutral) ± η (ε(x_t, positive) − ε(x_t, negative)) )

    ε* has the slider on, ε is the model without it; + enhances, − erases. x_t is drawn by the model
    itself with the slider on, and queried at its own noise level (the public implementation
    queries at a timestep higher by 19).

    Args:
        model: a model with the slider's branches on it.
        lora: the slider.
        concepts: the prompts as prepared conditionings.
        size: the latent's `(c, [1,] h, w)`.
        settings: the widgets of the node.
    """

    model: SliderModel
    lora: LearnedLoRA
    concepts: Sequence[Concept]
    size: tuple[int, ...]
    settings: TextSliderSettings
    _buffer: Tensor | None = field(default=None, init=False)  # (update, sample, c, [1,] h, w)

    @property
    def largest(self) -> tuple[int, ...]:
        return self.size[-2:]

    @property
    def extra_state(self) -> dict[str, Tensor]:
        """The latents that later updates take from the current trajectory."""
        return {} if self._buffer is None else {_BUFFER: self._buffer}

    def extra_layout(self, step: int) -> dict[str, Layout]:
        if self.settings.trajectory != "reused":
            return {}
        return {_BUFFER: ((SHARED, self.options.batch, *self.size), torch.float32)}

    def load_extra_state(self, tensors: Mapping[str, Tensor]) -> None:
        self._buffer = tensors.get(_BUFFER)

    def backward(self, step: int) -> dict[str, Tensor]:
        """Add the gradient of one step to the factors and return the detached terms."""
        loss = torch.zeros((), device=self.lora.parameters.flat.device)
        batch, passes = self.options.batch, self.options.accumulation
        for part in range(passes):
            self.fold()
            x, sigma, shown = self.draw(step * passes + part)
            together = 1 if self.low_memory else batch
            for first in range(0, batch, together):
                turn = slice(first, first + together)
                self.fold()
                errors = self._errors(x[turn], sigma[turn], shown[turn]) / (batch * passes)
                errors.sum().backward()
                loss += errors.detach().sum()
        return {"loss": loss, "slider": loss}

    def _errors(self, x: Tensor, sigma: Tensor, shown: Sequence[Concept]) -> Tensor:
        """Compute the weighted MSE `(n,)` of each sample in one batch."""
        target = self.target(x, sigma, shown)
        prediction = self.model.denoise(x, sigma, [c.target for c in shown], Gates())
        gamma = 0.0 if self.model.flow else self.options.min_snr_gamma  # it is for ε and v
        weight = min_snr_weight(sigma, gamma, self.model.v_prediction)
        return mean_squared_error(prediction, target) * weight.to(prediction)

    @torch.no_grad()
    def target(self, x: Tensor, sigma: Tensor, shown: Sequence[Concept]) -> Tensor:
        """Compute ε(neutral) ± η (ε(positive) − ε(negative)), float32, without the slider.

        The three predictions are one batch unless memory is low.
        """
        asked = [[getattr(c, end) for c in shown] for end in ("neutral", "positive", "negative")]
        if self.low_memory:
            predicted = [self.model.denoise(x, sigma, prompts, None) for prompts in asked]
        else:
            prompts = [prompt for of_one in asked for prompt in of_one]
            batch = self.model.denoise(torch.cat([x] * 3), sigma.repeat(3), prompts, None)
            predicted = batch.chunk(3)
        neutral, positive, negative = predicted
        sign = 1.0 if self.settings.action == "enhance" else -1.0
        return neutral + sign * self.settings.guidance * (positive - negative)

    def draw(self, update: int) -> tuple[Tensor, Tensor, list[Concept]]:
        """Draw the noisy latents `(b, c, [1,] h, w)` of an update, their σ `(b,)` and concepts.

        The result depends on the seed, the update's number, and the slider at the time its
        trajectory was drawn.
        """
        shared = SHARED if self.settings.trajectory == "reused" else 1
        group, place = divmod(update, shared)
        samples = range(group * self.options.batch, (group + 1) * self.options.batch)
        shown, steps, noise = zip(*(self.start(n, shared) for n in samples), strict=True)
        if place == 0 or self._buffer is None:
            start = self.model.place(torch.stack(noise))
            drawn = partly_denoised(self.model, shown, steps, start)
            self._buffer = torch.stack(drawn, 1) if shared > 1 else None
            x = torch.stack(drawn, 1)[place]
        else:
            x = self._buffer[place]
        taken = [own[place] for own in steps]
        sigmas = denoising_sigmas(self.model.sigmas)[taken]
        return x, self.model.place(sigmas), list(shown)

    def start(self, sample: int, shared: int) -> tuple[Concept, list[int], Tensor]:
        """Draw a sample's concept, its numbers of denoising steps (one for each update) and noise.

        The numbers are uniform on 1…49; those of a shared trajectory are stratified.
        """
        seed = self.settings.seed
        rng = generator(seed, sample)
        concept = self.concepts[draw_index(seed, len(self.concepts), sample)]
        within = (torch.arange(shared) + torch.rand(shared, generator=rng)) / shared
        steps = 1 + (within * (DENOISING_STEPS - 1)).long().clamp(max=DENOISING_STEPS - 2)
        steps = steps[torch.randperm(shared, generator=rng)]
        return concept, steps.tolist(), torch.randn(self.size, generator=rng)


def denoising_sigmas(sigmas: Tensor) -> Tensor:
    """Return the noise levels of 50 DDIM steps with "leading" spacing: timesteps 980, 960, … 0."""
    stride = len(sigmas) // DENOISING_STEPS
    return sigmas[torch.arange(DENOISING_STEPS - 1, -1, -1) * stride].float()


@torch.no_grad()
def partly_denoised(
    model: SliderModel, shown: Sequence[Concept], wanted: Sequence[Collection[int]], noise: Tensor
) -> list[Tensor]:
    """Denoise each sample for some steps with the slider on, guidance 3 against the negative.

    DDIM with η = 0 is Euler's method on x = x_VP √(1 + σ²). A flow is drawn without guidance, as
    `family.guidance` says. A sample leaves the batch after its
    last wanted step.

    Args:
        model: a model with the slider's branches on it.
        shown: the concept of each sample.
        wanted: the step numbers after which each sample's latent is recorded.
        noise: the starting noise `(b, c, [1,] h, w)`, unit variance, on the model's device.

    Returns:
        the recorded latents `(wanted, c, [1,] h, w)` of each sample.
    """
    sigmas = denoising_sigmas(model.sigmas).tolist()
    x = model.pure_noise(noise, sigmas[0])
    found: list[dict[int, Tensor]] = [{} for _ in shown]
    for step in range(max(map(max, wanted))):
        going = [b for b, steps in enumerate(wanted) if max(steps) > step]
        now = torch.stack([x[b] for b in going])  # indexing with a list would synchronise
        prompts = [shown[b].target for b in going]
        sigma = torch.full((len(now),), sigmas[step], device=x.device)
        if model.flow:
            x0 = model.denoised(now, sigma, prompts, Gates())
        else:
            prompts = [shown[b].negative for b in going] + prompts
            both = torch.cat([now, now])
            negative, target = model.denoised(both, sigma.repeat(2), prompts, Gates()).chunk(2)
            x0 = negative + GUIDANCE * (target - negative)
        change = (now - x0) / sigmas[step] * (sigmas[step + 1] - sigmas[step])
        for n, b in enumerate(going):
            x[b] += change[n]
            if step + 1 in wanted[b]:
                found[b][step + 1] = x[b].clone()
    return [torch.stack([of[k] for k in steps]) for of, steps in zip(found, wanted, strict=True)]
