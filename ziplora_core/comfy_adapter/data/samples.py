"""Sample pictures drawn by the model in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from einops import repeat
from torch import Tensor

from ...training.branches import Gates
from ...training.framing import Framing
from ...training.random import Stream, generator
from ..model import conditioning as cond
from ..model.sampler import sample_latents
from ..model.training_model import TrainingModel

STEPS = 20


def draw_samples(
    opened: TrainingModel,
    prepared: Sequence[cond.Conditioning],
    frame: Framing,
    seed: int,
    vae: Any,
) -> list[Tensor]:
    """Draw a picture for every prompt with the current branches: Euler, 20 steps, the model's
    guidance.

    Args:
        opened: the model in training.
        prepared: the conditioning of the prompts, followed by that of the empty prompt.
        frame: the size of the pictures.
        seed: the seed of the noise, the same each time, so that only the LoRA changes.
        vae: the VAE that decodes them, or None.

    Returns:
        the pictures `(h, w, 3)` in 0…1, on the CPU.
    """
    *prompts, nothing = prepared
    latents = [
        sample_latents(
            opened, [prompt], [nothing], sample_noise(opened, frame, seed, n), Gates(), STEPS
        )
        for n, prompt in enumerate(prompts)
    ]
    return [picture for pictures in decoded(opened, latents, vae) for picture in pictures]


def sample_noise(
    opened: TrainingModel,
    frame: Framing,
    seed: int,
    number: int,
    stream: Stream = Stream.SAMPLE_PICTURES,
) -> Tensor:
    """Draw the noise `(1, c, h, w)` of a picture, by its number and purpose."""
    size = opened.latent_shape(*frame.target)
    return torch.randn(1, *size, generator=generator(seed, stream, number))


def decoded(opened: TrainingModel, drawn: Sequence[Tensor], vae: Any | None) -> list[Tensor]:
    """Decode latents into pictures `(b, h, w, 3)` in 0…1, on the CPU.

    All are decoded together, at the end: the model may have to leave the card for the VAE, and is
    loaded again afterwards.

    Args:
        opened: the model in training.
        drawn: the latents `(b, c, [1,] h, w)` in the model's space.
        vae: the VAE; None for the rough colours of ComfyUI's previews.
    """
    if vae is None:
        return [_rough(opened.model.latent_format, latents) for latents in drawn]
    with torch.inference_mode():
        pictures = [vae.decode(opened.model.process_latent_out(x).cpu()) for x in drawn]
    opened.load()
    return [p.flatten(0, -4).clone().float().cpu().clamp(0, 1) for p in pictures]


def _rough(space: Any, latents: Tensor) -> Tensor:
    """Colour latents as ComfyUI's previews do, at full size."""
    factors, side = torch.tensor(space.latent_rgb_factors), space.spacial_downscale_ratio
    latents = latents.flatten(2, -3).squeeze(2) if latents.ndim > 4 else latents  # one frame
    rgb = latents.cpu().float().movedim(1, -1) @ factors
    if space.latent_rgb_factors_bias is not None:
        rgb = rgb + torch.tensor(space.latent_rgb_factors_bias)
    rgb = ((rgb + 1) / 2).clamp(0, 1)
    return repeat(rgb, "b h w c -> b (h side) (w also) c", side=side, also=side)
