"""Pictures drawn by the model in training: samples of what it has learned, and class pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.samplers
import torch
from comfy.k_diffusion.sampling import sample_euler
from torch import Tensor

from ..branches import Gates
from ..framing import Framing
from ..states import generator
from . import conditioning as cond
from .references import GUIDANCE
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
        vae: to see them by; the model is loaded again where it had to leave the card for it.

    Returns:
        pictures `(h, w, 3)` in 0…1, on the CPU.
    """
    *prompts, nothing = prepared
    size = (opened.model.latent_format.latent_channels, *(side // 8 for side in frame.target))
    pictures = []
    for n, prompt in enumerate(prompts):
        noise = torch.randn(1, *size, generator=generator(seed, _PURPOSE, n))
        with torch.no_grad():
            latent = draw_latent(opened, [prompt, nothing], noise, Gates(), STEPS)
        with torch.inference_mode():
            decoded = vae.decode(opened.model.process_latent_out(latent).cpu())[0]
        pictures.append(decoded.clone().float().cpu().clamp(0, 1))
    opened.load()
    return pictures


def draw_latent(
    opened: TrainingModel,
    pair: Sequence[cond.Conditioning],
    noise: Tensor,
    gates: Gates | None,
    steps: int,
) -> Tensor:
    """Draw one latent by Euler steps with guidance 5, as ComfyUI's sampler would.

    Args:
        opened: the model in training.
        pair: the prompt's conditioning, and the empty one's.
        noise: `(1, c, h, w)`, unit variance.
        gates: of the branches; None draws without them.
        steps: of the normal schedule.
    """

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        both = opened.denoised(torch.cat([x, x]), torch.cat([sigma, sigma]), pair, gates)
        positive, negative = both.chunk(2)
        return negative + GUIDANCE * (positive - negative)

    noise = noise.to(opened.device)
    sigmas = comfy.samplers.calculate_sigmas(opened.sampling, "normal", steps).to(opened.device)
    start = opened.sampling.noise_scaling(sigmas[0], noise, torch.zeros_like(noise), True)
    return sample_euler(guided, start, sigmas, disable=True)
