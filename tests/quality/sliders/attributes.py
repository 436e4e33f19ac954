"""The continuous attributes of the miniature world, in words and in pictures."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from miniworld import shapes, styles
from miniworld.scenes import Scene, render
from miniworld.styles import Style

SHOWN = {
    "star": "ocean plain",
    "key": "candy dotted",
    "house": "royal plain",
    "heart": "mint striped",
}
"""Drawn to see what a slider does: subjects, each in a style. No slider's training names one of
these subjects, or these styles."""
PROMPTS = tuple(f"a {subject} in {style} style" for subject, style in SHOWN.items())
PAIRS = 52
"""Pictures before and after, four in every palette; a person would make fewer, the renderer costs
nothing."""


@dataclass(frozen=True)
class Attribute:
    """One slider's subject matter.

    Args:
        name: as the gauge has it.
        words: of its two ends, less and more; None where the captions have none.
        ends: its values in the pictures before and after, at −2 and 2.
        learning_rate: of the pictures; at a higher one the slider goes further and bends.
    """

    name: str
    words: tuple[str, str] | None
    ends: tuple[float, float]
    learning_rate: float

    def edited(self, prompt: str) -> tuple[str, str]:
        """Ask for its two ends in words, as one would without a slider."""
        assert self.words is not None
        less, more = (prompt.replace("a ", f"a {word} ", 1) for word in self.words)
        return less, more

    def pictures(self, scale: float) -> tuple[Tensor, Tensor]:
        """Draw the pairs `(52, 128, 128, 3)`: the same scenes with less and with more of it.

        A generator of another kind draws them, as StyleGAN does for the paper: this world's own
        renderer, by a knob that the diffusion model has no word for in the case of `stretch`.
        """
        rng = random.Random(f"pairs {self.name}")
        names = [name for name in shapes.SEEN if name not in SHOWN]
        by_palette: dict[str, list[Style]] = {}
        for style in styles.SEEN:
            if style.words not in SHOWN.values():
                by_palette.setdefault(style.palette, []).append(style)
        palettes = itertools.islice(itertools.cycle(by_palette.values()), PAIRS)
        scenes = [Scene(rng.choice(names), rng.choice(seen), radius=0.5) for seen in palettes]
        middle, reach = sum(self.ends) / 2, (self.ends[1] - self.ends[0]) / 4 * scale
        low, high = (
            torch.stack([render(replace(scene, **{self.name: value})) for scene in scenes])
            for value in (middle - reach, middle + reach)
        )
        return low.movedim(1, -1), high.movedim(1, -1)


BRIGHTNESS = Attribute("brightness", ("very dark", "very bright"), (-0.7, 0.9), 1.4e-4)
RADIUS = Attribute("radius", ("tiny", "huge"), (0.3, 0.76), 4e-4)
STRETCH = Attribute("stretch", None, (-0.9, 0.9), 3e-4)
ATTRIBUTES = (BRIGHTNESS, RADIUS, STRETCH)
