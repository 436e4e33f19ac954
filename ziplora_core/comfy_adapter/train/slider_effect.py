"""The effect of a slider on pictures of the same noise with the slider down, off and up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...sliders.options import SliderSettings
from ...training.branches import Gates
from ...training.framing import Framing
from ...training.random import Stream
from ..data.samples import decoded, sample_noise
from ..model.conditioning import Conditioning
from ..model.sampler import sample_latents
from ..model.training_model import TrainingModel

PICTURES = 3
"""Number of noises at the end; their pictures also show how much seeds differ."""
STEPS = 20
NOTHING = 0.05
"""Change, relative to that of another seed, below which the report warns."""


@dataclass(frozen=True)
class Effect:
    """Pictures of a slider's effect, and the change that they show.

    Args:
        pictures: pictures `(seed, 3, h, w, 3)` in 0…1, with the slider at −s, 0 and +s.
        scale: the scale s.
        prompt: the prompt of the pictures.
        start_percent: share of the sampling after which the slider was active.
    """

    pictures: Tensor
    scale: float
    prompt: str
    start_percent: float

    @property
    def change(self) -> float:
        """The mean absolute difference between −s and +s."""
        return float((self.pictures[:, 0] - self.pictures[:, 2]).abs().mean())

    @property
    def spread(self) -> float:
        """The mean absolute difference between two seeds without the slider."""
        off = self.pictures[:, 1]
        return float((off - off.roll(1, 0)).abs().mean())

    @property
    def relative(self) -> float:
        """The change, relative to the difference between two seeds."""
        return self.change / max(self.spread, 1e-9)

    def line(self) -> str:
        """Return the report's line on the effect; a warning if there is almost none."""
        shown = repr(self.prompt) if self.prompt else "the empty prompt"
        if len(self.pictures) == 1:
            return f"effect on {shown}: shown, not measured (held_out_draws is 0)"
        how = (
            f"from −{self.scale:g} to {self.scale:g}, active from {self.start_percent:.0%} of the "
            f"sampling on, pictures of {shown} change by"
        )
        if self.relative < NOTHING:
            return (
                f"WARNING: this slider does nothing yet: {how} {self.relative:.1%} of what another "
                "seed changes. Train longer, raise the guidance or the learning rate, or put the "
                "prompts further apart"
            )
        return f"effect: {how} {self.relative:.0%} of what another seed changes"


def scales(scale: float) -> list[str]:
    """Write the scales of the pictures for people, in their order."""
    return [f"{number:g}".replace("-", "−") for number in (-scale, 0, scale)]


def look_at_effect(
    opened: TrainingModel,
    prompts: Sequence[Conditioning],
    frame: Framing,
    count: int,
    vae: Any | None,
    prompt: str,
    settings: SliderSettings,
) -> Effect:
    """Draw a prompt at −s, 0 and +s from each of `count` noises: Euler, 20 steps, guidance 5.

    The noises have the same seed every time, so that only the slider changes the pictures.

    Args:
        opened: the model in training, with the slider folded in.
        prompts: conditionings of the prompt and of the empty prompt.
        frame: size of the pictures.
        count: number of noises; the report's line needs `PICTURES` of them.
        vae: VAE that decodes the pictures; None for ComfyUI's approximate latent colours.
        prompt: text of the prompt.
        settings: settings of the slider, with its range s and the seed.
    """
    scale, start_percent = settings.range, settings.start_percent
    since = opened.sampling.percent_to_sigma(start_percent)
    drawn = []
    for n in range(count):
        noise = sample_noise(opened, frame, settings.seed, n, Stream.SLIDER_EFFECT)
        drawn.append(_at_each(opened, prompts, noise, [-scale, 0.0, scale], since))
    return Effect(torch.stack(decoded(opened, drawn, vae)), scale, prompt, start_percent)


def _at_each(
    opened: TrainingModel,
    prompts: Sequence[Conditioning],
    noise: Tensor,
    scales: Sequence[float],
    since: float,
) -> Tensor:
    """Draw one noise at every scale, in one batch or, with low memory, one after the other."""
    prompt, nothing = prompts

    def draw(some: Sequence[float]) -> Tensor:
        count, gates = len(some), Gates(torch.tensor(some)[:, None])
        noises = noise.expand(count, *noise.shape[1:])
        return sample_latents(
            opened, [prompt] * count, [nothing] * count, noises, gates, STEPS, since=since
        )

    return torch.cat([draw([s]) for s in scales]) if opened.checkpointing else draw(scales)
