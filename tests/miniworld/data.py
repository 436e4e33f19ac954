"""The pictures that a training reads: all drawn once from the seed, as averaged colours."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from .latents import latents_of, quarter
from .scenes import render
from .world import draw_caption, draw_training_scene


@dataclass(frozen=True)
class Pictures:
    """Pictures as bytes of their averaged colours `(n, 3, 32, 32)`, and their captions."""

    quarters: Tensor
    captions: list[str]

    def latents(self, rows: list[int]) -> Tensor:
        return latents_of(self.quarters[rows].float() / 255)


def draw_pictures(count: int, seed: int) -> Pictures:
    """Draw the pictures 0 … count − 1 of a seed: about a millisecond each."""
    rng = random.Random(seed)
    quarters, captions = [], []
    for _ in range(count):
        scene = draw_training_scene(rng)
        quarters.append((quarter(render(scene)[None])[0] * 255).round().to(torch.uint8))
        captions.append(draw_caption(rng, scene))
    return Pictures(torch.stack(quarters), captions)
