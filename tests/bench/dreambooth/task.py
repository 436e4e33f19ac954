"""The training data of all contenders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import comfy.sd
import torch
from torch import Tensor

from sandbox import tiny

PROMPT = "a photo of sks dog"


@dataclass(frozen=True)
class Task:
    """Pictures of one size and their prompt; one batch has all of them.

    Args:
        images: pictures `(batch, 8 h, 8 w, 3)` for latents of h × w.
    """

    images: Tensor
    clip: comfy.sd.CLIP
    vae: comfy.sd.VAE

    @property
    def batch(self) -> int:
        return len(self.images)

    @torch.no_grad()
    def samples(self) -> Tensor:
        """Encode the images to unscaled latents `(batch, 4, h, w)`, as VAE Encode does."""
        return self.vae.encode(self.images)

    @torch.no_grad()
    def conditioning(self) -> list[list[Any]]:
        """Encode the prompt, as CLIP Text Encode does."""
        return self.clip.encode_from_tokens_scheduled(self.clip.tokenize(PROMPT))


def make_task(batch: int, size: int) -> Task:
    """Draw random images for square latents of side `size`."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(batch, 8 * size, 8 * size, 3, generator=generator)
    return Task(images, tiny.tiny_clip(), tiny.tiny_vae())
