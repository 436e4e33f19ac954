"""Train the decoder: from a latent to the sharp picture it was encoded from."""

from __future__ import annotations

import random

import torch
from torch import Tensor
from torch.nn.functional import l1_loss

from .latents import latents_of, new_vae, quarter
from .loop import Averaged, Schedule, Training
from .scenes import render
from .world import draw_training_scene

SCHEDULE = Schedule(2_000, 1e-3, 1e-5)
BATCH = 16
CROP = 64
NOISE = 0.2
"""Largest deviation of the noise on the latents: what a sampler draws is not exact either."""


class DecoderTraining(Training):
    """The TAESD's decoder learning from crops of pictures drawn as it goes."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.vae = new_vae(seed)
        self.vae.requires_grad_(False)
        self.vae.taesd_decoder.requires_grad_(True)
        self.averaged = Averaged(list(self.vae.taesd_decoder.parameters()), 0.995)

    def loss(self) -> Tensor:
        """Mean absolute error of colours, and of the differences between neighbours (edges)."""
        rng = random.Random(f"decoder {self.seed} {self.step}")
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)
        pictures = torch.stack([_crop(render(draw_training_scene(rng)), rng) for _ in range(BATCH)])
        latents = latents_of(quarter(pictures))
        deviation = NOISE * torch.rand(BATCH, 1, 1, 1, generator=generator)
        latents += deviation * torch.randn(latents.shape, generator=generator)
        with torch.autocast("cpu", torch.bfloat16):
            drawn = self.vae.taesd_decoder(latents)
        return _difference(drawn.float(), pictures)


def _crop(picture: Tensor, rng: random.Random) -> Tensor:
    """Cut at a whole latent, so that the crop has latents of its own."""
    top, left = (8 * rng.randrange((picture.shape[-1] - CROP) // 8 + 1) for _ in range(2))
    return picture[:, top : top + CROP, left : left + CROP]


def _difference(drawn: Tensor, wanted: Tensor) -> Tensor:
    edges = sum(l1_loss(drawn.diff(dim=side), wanted.diff(dim=side)) for side in (2, 3))
    return l1_loss(drawn, wanted) + edges
