"""The sampler that draws pictures with a model in training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import comfy.samplers
import torch
from comfy.k_diffusion.sampling import sample_euler
from torch import Tensor

from ...training.branches import Gates
from .conditioning import Conditioning
from .family import guidance
from .training_model import TrainingModel

Told = Callable[[Tensor, Tensor, Tensor], None]
"""A function of x_t, σ `(b,)` and the x0 predicted for the prompts, without guidance."""


@torch.no_grad()
def sample_latents(
    opened: TrainingModel,
    prompts: Sequence[Conditioning],
    negatives: Sequence[Conditioning],
    noise: Tensor,
    gates: Gates | None,
    steps: int,
    on_step: Told = lambda x, sigma, x0: None,
    since: float = math.inf,
    negative_strength: float = 1.0,
) -> Tensor:
    """Draw one latent `(b, c, [1,] h, w)` per prompt, by Euler steps, as ComfyUI does.

    The strength of guidance is the model's, see `family.guidance`; at 1 the negatives are not read.

    Args:
        opened: the model in training.
        prompts, negatives: b conditionings each.
        noise: noise `(b, c, [1,] h, w)` of unit variance.
        gates: gates of the branches, one row per prompt; None to draw without branches.
        steps: number of steps of the normal schedule.
        on_step: function called at every step.
        since: largest σ at which the branches are active.
        negative_strength: a factor on the gates in the unconditional half.
    """
    strength = guidance(opened.model)
    conditionings = [*prompts, *negatives]
    both_halves = gates and gates.for_guidance(len(prompts), negative_strength)

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        active = since == math.inf or float(sigma[0]) <= since  # the latter waits for the device
        if strength == 1:
            x0 = opened.denoised(x, sigma, prompts, gates if active else None)
            on_step(x, sigma, x0)
            return x0
        both, sigma_of_both = torch.cat([x, x]), torch.cat([sigma, sigma])
        present = both_halves if active else None
        x0 = opened.denoised(both, sigma_of_both, conditionings, present)
        positive, negative = x0.chunk(2)
        on_step(x, sigma, positive)
        return negative + strength * (positive - negative)

    noise = noise.to(opened.device)
    sigmas = comfy.samplers.calculate_sigmas(opened.sampling, "normal", steps).to(opened.device)
    start = opened.sampling.noise_scaling(sigmas[0], noise, torch.zeros_like(noise), True)
    return sample_euler(guided, start, sigmas, disable=True)
