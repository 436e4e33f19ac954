"""How a model in training draws pictures: the one sampler of the pack."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import comfy.samplers
import torch
from comfy.k_diffusion.sampling import sample_euler
from torch import Tensor

from ..branches import Gates
from .conditioning import Conditioning
from .training_model import TrainingModel

GUIDANCE = 5.0
Told = Callable[[Tensor, Tensor, Tensor], None]
"""Told at every step: x_t, σ `(b,)` and the x0 predicted for the prompts themselves."""


@torch.no_grad()
def draw_latents(
    opened: TrainingModel,
    prompts: Sequence[Conditioning],
    negatives: Sequence[Conditioning],
    noise: Tensor,
    gates: Gates | None,
    steps: int,
    on_step: Told = lambda x, sigma, x0: None,
    since: float = math.inf,
) -> Tensor:
    """Draw one latent per prompt by Euler steps with guidance 5, as ComfyUI's sampler would.

    Args:
        opened: the model in training.
        prompts, negatives: b of each.
        noise: `(b, c, h, w)`, unit variance.
        gates: of the branches, for one prompt each; None draws without them.
        steps: of the normal schedule.
        on_step: who follows it.
        since: σ from which on the branches count; before it they are not there.
    """
    conditionings = [*prompts, *negatives]
    both_halves = gates and gates.for_guidance(len(prompts))

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        both, sigma_of_both = torch.cat([x, x]), torch.cat([sigma, sigma])
        present = both_halves if float(sigma[0]) <= since else None
        x0 = opened.denoised(both, sigma_of_both, conditionings, present)
        positive, negative = x0.chunk(2)
        on_step(x, sigma, positive)
        return negative + GUIDANCE * (positive - negative)

    noise = noise.to(opened.device)
    sigmas = comfy.samplers.calculate_sigmas(opened.sampling, "normal", steps).to(opened.device)
    start = opened.sampling.noise_scaling(sigmas[0], noise, torch.zeros_like(noise), True)
    return sample_euler(guided, start, sigmas, disable=True)
