"""What a slider does to a picture: the same noise with the slider down, off and up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..branches import Gates
from ..framing import Framing
from ..options import SliderSettings
from ..states import generator
from .conditioning import Conditioning
from .euler import draw_latents
from .samples import decoded
from .training_model import TrainingModel

PICTURES = 3
"""Noises that are looked at in the end: their pictures also say how much seeds differ."""
STEPS = 20
NOTHING = 0.05
"""Change, relative to what another seed changes, below which a slider does nothing yet."""
_PURPOSE = 29  # a stream of noise of its own


@dataclass(frozen=True)
class Effect:
    """What was seen.

    Args:
        pictures: `(seed, 3, h, w, 3)` in 0…1, the slider at −s, 0 and +s.
        scale: s.
        prompt: that was drawn.
        start_percent: share of the sampling after which the slider came in.
    """

    pictures: Tensor
    scale: float
    prompt: str
    start_percent: float

    @property
    def change(self) -> float:
        """Mean absolute difference between −s and +s."""
        return float((self.pictures[:, 0] - self.pictures[:, 2]).abs().mean())

    @property
    def spread(self) -> float:
        """Mean absolute difference between two seeds without the slider."""
        off = self.pictures[:, 1]
        return float((off - off.roll(1, 0)).abs().mean())

    @property
    def relative(self) -> float:
        """The change, by what another seed changes."""
        return self.change / max(self.spread, 1e-9)

    def line(self) -> str:
        """Say it in the report."""
        shown = repr(self.prompt) if self.prompt else "the empty prompt"
        how = (
            f"from −{self.scale:g} to {self.scale:g}, in from {self.start_percent:.0%} of the "
            f"steps on, pictures of {shown} change by"
        )
        if self.relative < NOTHING:
            return (
                f"WARNING: this slider does nothing yet: {how} {self.relative:.1%} of what another "
                "seed changes. Train longer, raise the guidance or the learning rate, or put the "
                "prompts further apart"
            )
        return f"effect: {how} {self.relative:.0%} of what another seed changes"


def look_at_effect(
    opened: TrainingModel,
    prompts: Sequence[Conditioning],
    frame: Framing,
    count: int,
    vae: Any | None,
    prompt: str,
    settings: SliderSettings,
) -> Effect:
    """Draw a prompt at −s, 0 and +s from each of some noises: Euler, 20 steps, guidance 5.

    Args:
        opened: the model in training, the slider folded in.
        prompts: conditionings of the prompt and of the empty one.
        frame: size of the pictures.
        count: noises; a line about the effect takes `PICTURES` of them.
        vae: to see them by; without one, ComfyUI's rough colours of latents.
        prompt: its words.
        settings: s is their range; the seed of the noises is the same every time, so that only the
            slider changes.
    """
    size = (opened.model.latent_format.latent_channels, *(side // 8 for side in frame.target))
    scale, start_percent = settings.range, settings.start_percent
    since = opened.sampling.percent_to_sigma(start_percent)
    drawn = []
    for n in range(count):
        noise = torch.randn(1, *size, generator=generator(settings.seed, _PURPOSE, n))
        drawn.append(_at_each(opened, prompts, noise, [-scale, 0.0, scale], since))
    return Effect(torch.stack(decoded(opened, drawn, vae)), scale, prompt, start_percent)


def _at_each(
    opened: TrainingModel,
    prompts: Sequence[Conditioning],
    noise: Tensor,
    scales: Sequence[float],
    since: float,
) -> Tensor:
    """Draw one noise at every scale: as one batch, or in turn where memory is low."""
    prompt, nothing = prompts

    def draw(some: Sequence[float]) -> Tensor:
        count, gates = len(some), Gates(torch.tensor(some)[:, None])
        noises = noise.expand(count, *noise.shape[1:])
        return draw_latents(
            opened, [prompt] * count, [nothing] * count, noises, gates, STEPS, since=since
        )

    return torch.cat([draw([s]) for s in scales]) if opened.checkpointing else draw(scales)
