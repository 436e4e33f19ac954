"""What the sliders move: the world's continuous attributes, in words and in pictures."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from miniworld import shapes, styles
from miniworld.scenes import Scene, render

SHOWN = {
    "star": "ocean plain",
    "key": "candy dotted",
    "house": "royal plain",
    "heart": "mint striped",
}
"""Drawn to see what a slider does: subjects, each in a style. No slider's training names one of
these subjects, or these styles."""
PROMPTS = tuple(f"a {subject} in {style} style" for subject, style in SHOWN.items())
PAIRS = 16
"""Pictures before and after; a person would make four to six, the renderer costs nothing."""


@dataclass(frozen=True)
class Attribute:
    """One slider's subject matter.

    Args:
        name: as the gauge has it.
        words: of its two ends, less and more; None where the captions have none.
        ends: its values in the pictures before and after.
    """

    name: str
    words: tuple[str, str] | None
    ends: tuple[float, float]

    def edited(self, prompt: str) -> tuple[str, str]:
        """Ask for its two ends in words, as one would without a slider."""
        assert self.words is not None
        less, more = (prompt.replace("a ", f"a {word} ", 1) for word in self.words)
        return less, more

    def pictures(self) -> tuple[Tensor, Tensor]:
        """Draw the pairs `(16, 128, 128, 3)`: the same scenes with less and with more of it.

        A generator of another kind draws them, as StyleGAN does for the paper: this world's own
        renderer, by a knob that the diffusion model has no word for in the case of `stretch`.
        """
        rng = random.Random(f"pairs {self.name}")
        names = [name for name in shapes.SEEN if name not in SHOWN]
        others = [style for style in styles.SEEN if style.words not in SHOWN.values()]
        scenes = [Scene(rng.choice(names), rng.choice(others), radius=0.5) for _ in range(PAIRS)]
        drawn = [
            torch.stack([render(replace(scene, **{self.name: value})) for scene in scenes])
            for value in self.ends
        ]
        return drawn[0].movedim(1, -1), drawn[1].movedim(1, -1)


BRIGHTNESS = Attribute("brightness", ("very dark", "very bright"), (-0.45, 0.45))
RADIUS = Attribute("radius", ("tiny", "huge"), (0.34, 0.7))
STRETCH = Attribute("stretch", None, (-0.6, 0.6))
ATTRIBUTES = (BRIGHTNESS, RADIUS, STRETCH)
