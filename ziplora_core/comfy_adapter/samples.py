"""Pictures drawn by the model in training: samples of what it has learned, and class pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from einops import repeat
from torch import Tensor

from ..branches import Gates
from ..framing import Framing
from ..states import generator
from . import conditioning as cond
from .euler import draw_latents
from .training_model import TrainingModel

STEPS = 20
_PURPOSE = 11  # a stream of noise of its own


def draw_samples(
    opened: TrainingModel,
    prepared: Sequence[cond.Conditioning],
    frame: Framing,
    seed: int,
    vae: Any,
) -> list[Tensor]:
    """Draw every prompt with the branches as they are: Euler, 20 steps, guidance 5.

    Args:
        opened: the model in training.
        prepared: conditioning of the prompts, and last that of the empty one.
        frame: size of the pictures.
        seed: of the noise, the same every time, so that only the LoRA changes.
        vae: to see them by.

    Returns:
        pictures `(h, w, 3)` in 0…1, on the CPU.
    """
    *prompts, nothing = prepared
    latents = [
        draw_latents(
            opened, [prompt], [nothing], sample_noise(opened, frame, seed, n), Gates(), STEPS
        )
        for n, prompt in enumerate(prompts)
    ]
    return [picture for pictures in decoded(opened, latents, vae) for picture in pictures]


def sample_noise(opened: TrainingModel, frame: Framing, seed: int, number: int) -> Tensor:
    """Draw the noise `(1, c, h, w)` of a sample picture."""
    size = (opened.model.latent_format.latent_channels, *(side // 8 for side in frame.target))
    return torch.randn(1, *size, generator=generator(seed, _PURPOSE, number))


def decoded(opened: TrainingModel, drawn: Sequence[Tensor], vae: Any | None) -> list[Tensor]:
    """Make pictures `(b, h, w, 3)` in 0…1, on the CPU, of all that was drawn.

    All at once, in the end: the model may have to leave the card for the VAE. It is loaded again
    afterwards.

    Args:
        opened: the model in training.
        drawn: latents `(b, c, h, w)` as the model has them.
        vae: to see them by; None for the rough colours that ComfyUI's previews have.
    """
    if vae is None:
        return [_rough(opened.model.latent_format, latents) for latents in drawn]
    with torch.inference_mode():
        pictures = [vae.decode(opened.model.process_latent_out(x).cpu()) for x in drawn]
    opened.load()
    return [p.clone().float().cpu().clamp(0, 1) for p in pictures]


def _rough(space: Any, latents: Tensor) -> Tensor:
    """Colour latents as ComfyUI's previews do, at full size."""
    factors = torch.tensor(space.latent_rgb_factors)
    rgb = latents.cpu().float().movedim(1, -1) @ factors
    if space.latent_rgb_factors_bias is not None:
        rgb = rgb + torch.tensor(space.latent_rgb_factors_bias)
    rgb = ((rgb + 1) / 2).clamp(0, 1)
    return repeat(rgb, "b h w c -> b (h eight) (w also) c", eight=8, also=8)
