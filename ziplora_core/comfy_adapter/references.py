"""Where noisy states come from: reference latents, or pictures the LoRAs draw themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import comfy.samplers
import torch
from comfy.k_diffusion.sampling import sample_euler
from torch import Tensor

from ..branches import Gates
from ..errors import problem
from ..states import State, draw_timesteps, generator, with_targets
from .conditioning import Conditioning
from .training_model import TrainingModel

TRAJECTORY_STEPS = 25
GUIDANCE = 5.0
_TIMESTEPS, _NOISE = 1, 2  # purposes of a generator


def reference_latents(model: Any, latent: Any, name: str) -> Tensor:
    """Take a LATENT's pictures into the model's latent space, `(n, c, h, w)` float32, CPU.

    Raises:
        ZipLoRAError: not this model's channel count, not finite, a mask, or an empty latent.
    """
    samples = latent["samples"]
    channels = model.latent_format.latent_channels
    found = None
    if getattr(samples, "is_nested", False) or samples.ndim != 4 or samples.shape[1] != channels:
        found = f"latents of shape {tuple(samples.shape)}"
    elif latent.get("noise_mask") is not None:
        found = "a latent with a noise mask"
    elif not torch.isfinite(samples).all():
        found = "latents with NaN or infinity"
    elif not samples.any():
        found = "an empty latent"
    if found:
        raise problem(
            name,
            found=found,
            expected=f"pictures encoded by this checkpoint's VAE, {channels} channels",
            advice="Connect VAE Encode of a reference picture, or leave the input unconnected.",
        )
    return model.process_latent_in(samples.detach().clone().float().cpu())


@dataclass(frozen=True)
class Reference:
    """What one concept is drawn from: its prompt, the zeroed prompt, its latents if any."""

    prompt: Conditioning
    unconditional: Conditioning
    latents: Tensor | None


def evaluations(references: Sequence[Reference], draws: int, held_out: int) -> int:
    """How many samples go through the UNet for `draws` and then `held_out` states per concept."""
    trajectory = 2 * TRAJECTORY_STEPS * -(-draws // TRAJECTORY_STEPS)
    return sum(held_out + (trajectory if r.latents is None else draws) for r in references)


def draw_pictures(
    model: TrainingModel,
    references: Sequence[Reference],
    size: tuple[int, int, int],
    draws: int,
    *seed: int,
) -> tuple[list[list[State]], list[Reference]]:
    """Let the LoRA of every concept without latents draw its own pictures.

    Args:
        model: with one branch per concept.
        references: of each concept, in the order of the branches.
        size: latent `(c, h, w)` of the pictures.
        draws: at least so many states per concept: one picture per 25.
        seed: of the starting noise, which all concepts share.

    Returns:
        the states on the way (empty for a concept with latents), and the references with latents.
    """
    states: list[list[State]] = [[] for _ in references]
    complete = list(references)
    without = [i for i, reference in enumerate(references) if reference.latents is None]
    if without:
        recorded, pictures = _trajectories(model, references, without, size, draws, seed)
        for n, i in enumerate(without):
            states[i] = recorded[n]
            complete[i] = replace(references[i], latents=pictures[:, n])
    return states, complete


def noised_states(
    model: TrainingModel,
    references: Sequence[Reference],
    concept: int,
    draws: int,
    *seed: int,
    targets: bool = True,
) -> list[State]:
    """Noise the latents of a concept and ask its single-LoRA teacher.

    Equal seeds and sizes give all concepts the same noise and the same timesteps.

    Args:
        model: with one branch per concept.
        references: of each concept, in the order of the branches.
        concept: which one; its reference has latents.
        draws: how many states.
        seed: of timesteps and noise.
        targets: whether the teacher is asked at all.
    """
    reference = references[concept]
    assert reference.latents is not None
    noised = _noised(model, reference.latents, reference.prompt, draws, seed)
    if not targets:
        return noised
    return with_targets(model.denoise, noised, concept, len(references), batch=2)


def _noised(
    model: TrainingModel,
    latents: Tensor,
    conditioning: Conditioning,
    draws: int,
    seed: tuple[int, ...],
) -> list[State]:
    """Draw noisy versions of reference latents: x_t = x0 + σ(t)·noise, t uniform."""
    sampling = model.sampling
    timesteps = draw_timesteps(draws, len(sampling.sigmas), generator(*seed, _TIMESTEPS))
    rng = generator(*seed, _NOISE)
    states = []
    for i, sigma in enumerate(sampling.sigmas.to(model.device)[timesteps]):
        x0 = latents[i % len(latents)].to(model.device)
        noise = torch.randn(x0.shape, generator=rng).to(model.device)
        states.append(State(sampling.noise_scaling(sigma, noise, x0), sigma, conditioning))
    return states


def _trajectories(
    model: TrainingModel,
    references: Sequence[Reference],
    concepts: Sequence[int],
    size: tuple[int, int, int],
    draws: int,
    seed: tuple[int, ...],
) -> tuple[list[list[State]], Tensor]:
    """Record (x_t, σ, prediction) while sampling with each single LoRA.

    Euler, 25 steps, guidance 5 against the zeroed prompt; all concepts as one batch, from the same
    noise. Returns the states of each concept, and the pictures `(picture, concept, c, h, w)`.
    """
    sigmas = comfy.samplers.calculate_sigmas(model.sampling, "normal", TRAJECTORY_STEPS)
    sigmas = sigmas.to(model.device)
    recorded: list[list[State]] = [[] for _ in concepts]
    pictures = []
    rows = torch.eye(len(references))[list(concepts)]
    gates = Gates(torch.cat([rows, rows]), learned=False)
    conditioning = [references[i].prompt for i in concepts]
    conditioning += [references[i].unconditional for i in concepts]

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        both, sigma_of_both = torch.cat([x, x]), torch.cat([sigma, sigma])
        prediction = model.denoise(both, sigma_of_both, conditioning, gates)
        for i, states in enumerate(recorded):
            states.append(State(x[i], sigma[i], conditioning[i], prediction[i]))
        x0 = model.sampling.calculate_denoised(sigma_of_both, prediction, both)
        positive, negative = x0.chunk(2)
        return negative + GUIDANCE * (positive - negative)

    with torch.no_grad():
        for trajectory in range(-(-draws // TRAJECTORY_STEPS)):
            noise = torch.randn(size, generator=generator(*seed, _NOISE, trajectory))
            noise = noise.to(model.device).repeat(len(concepts), 1, 1, 1)
            start = model.sampling.noise_scaling(sigmas[0], noise, torch.zeros_like(noise), True)
            pictures.append(sample_euler(guided, start, sigmas, disable=True))
    return recorded, torch.stack(pictures)
