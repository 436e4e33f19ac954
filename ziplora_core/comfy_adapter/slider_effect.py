"""What a slider does to a picture: the same noise with the slider down, off and up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..branches import Gates
from ..framing import Framing
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
    """

    pictures: Tensor
    scale: float

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
        if self.relative < NOTHING:
            return (
                f"WARNING: this slider does nothing yet: from −{self.scale:g} to {self.scale:g} "
                f"pictures change by {self.relative:.1%} of what another seed changes. Train "
                "longer, raise the guidance or the learning rate, or put the prompts further apart"
            )
        return (
            f"effect from −{self.scale:g} to {self.scale:g}: pictures change by "
            f"{self.relative:.0%} of what another seed changes"
        )


def look_at_effect(
    opened: TrainingModel,
    prompts: Sequence[Conditioning],
    frame: Framing,
    seed: int,
    count: int,
    vae: Any | None,
    scale: float,
    start_percent: float,
) -> Effect:
    """Draw the prompt at −s, 0 and +s from each of some noises: Euler, 20 steps, guidance 5.

    Args:
        opened: the model in training, the slider folded in.
        prompts: conditionings of the prompt and of the empty one.
        frame: size of the pictures.
        seed: of the noises, the same every time, so that only the slider changes.
        count: noises; a line about the effect takes `PICTURES` of them.
        vae: to see them by; without one, ComfyUI's rough colours of latents.
        scale: s.
        start_percent: share of the sampling after which the slider comes in.
    """
    prompt, nothing = prompts
    size = (opened.model.latent_format.latent_channels, *(side // 8 for side in frame.target))
    gates = Gates(torch.tensor([[-scale], [0.0], [scale]]))
    since = opened.sampling.percent_to_sigma(start_percent)
    seen = []
    for n in range(count):
        noise = torch.randn(1, *size, generator=generator(seed, _PURPOSE, n)).expand(3, *size)
        latents = draw_latents(
            opened, [prompt] * 3, [nothing] * 3, noise, gates, STEPS, since=since
        )
        seen.append(decoded(opened, latents, vae))
    opened.load()
    return Effect(torch.stack(seen), scale)
