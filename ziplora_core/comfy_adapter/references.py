"""Where noisy states come from: reference latents, or pictures the LoRAs draw themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..branches import Gates
from ..errors import problem
from ..states import State, Teacher, draw_timesteps, generator, with_targets
from .conditioning import Conditioning
from .euler import draw_latents
from .training_model import TrainingModel

TRAJECTORY_STEPS = 25
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
    """What a teacher draws, or has drawn.

    Args:
        teacher: the gates of content and style: one LoRA alone, or both.
        prompt, unconditional: its prompt, and the zeroed one.
        latents: of reference pictures, None where it draws its own.
    """

    teacher: Teacher
    prompt: Conditioning
    unconditional: Conditioning
    latents: Tensor | None


def evaluations(
    references: Sequence[Reference], draws: int, held_out: int, targets: bool = True
) -> int:
    """How many samples go through the UNet for `draws` and then `held_out` states per teacher."""
    trajectory = 2 * TRAJECTORY_STEPS * -(-draws // TRAJECTORY_STEPS)
    asked = draws if targets else 0
    return sum(held_out + (trajectory if r.latents is None else asked) for r in references)


def draw_pictures(
    model: TrainingModel,
    references: Sequence[Reference],
    size: tuple[int, int, int],
    draws: int,
    *seed: int,
) -> tuple[list[list[State]], list[Reference]]:
    """Let every teacher without latents draw its own pictures.

    Args:
        model: with a content and a style branch.
        references: of each teacher.
        size: latent `(c, h, w)` of the pictures.
        draws: at least so many states per teacher: one picture per 25.
        seed: of the starting noise, which all teachers share.

    Returns:
        the states on the way (empty for a teacher with latents), and the references with latents.
    """
    states: list[list[State]] = [[] for _ in references]
    complete = list(references)
    without = [i for i, reference in enumerate(references) if reference.latents is None]
    if without:
        drawing = [references[i] for i in without]
        recorded, pictures = _trajectories(model, drawing, size, draws, seed)
        for n, i in enumerate(without):
            states[i] = recorded[n]
            complete[i] = replace(references[i], latents=pictures[:, n])
    return states, complete


def noised_states(
    model: TrainingModel, reference: Reference, draws: int, *seed: int, targets: bool = True
) -> list[State]:
    """Noise a teacher's latents and ask it for the targets.

    Equal seeds and sizes give all teachers the same noise and the same timesteps.

    Args:
        model: with a content and a style branch.
        reference: with latents.
        draws: how many states.
        seed: of timesteps and noise.
        targets: whether the teacher is asked at all.
    """
    assert reference.latents is not None
    noised = _noised(model, reference.latents, reference.prompt, draws, seed)
    return with_targets(model.denoise, noised, reference.teacher, batch=2) if targets else noised


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
    for i, sigma in enumerate(model.place(model.sigmas[timesteps])):
        x0 = latents[i % len(latents)].to(model.device)
        noise = torch.randn(x0.shape, generator=rng).to(model.device)
        states.append(State(sampling.noise_scaling(sigma, noise, x0), sigma, conditioning))
    return states


def _trajectories(
    model: TrainingModel,
    references: Sequence[Reference],
    size: tuple[int, int, int],
    draws: int,
    seed: tuple[int, ...],
) -> tuple[list[list[State]], Tensor]:
    """Record (x_t, σ, prediction) while every teacher draws, all as one batch, from one noise.

    Returns the states of each, and the pictures `(picture, teacher, c, h, w)`.
    """
    recorded: list[list[State]] = [[] for _ in references]
    prompts = [reference.prompt for reference in references]

    def record(x: Tensor, sigma: Tensor, x0: Tensor) -> None:
        prediction = model.prediction(x, sigma, x0)
        for i, states in enumerate(recorded):
            states.append(State(x[i], sigma[i], prompts[i], prediction[i]))

    gates = Gates(torch.tensor([reference.teacher for reference in references]), learned=False)
    negatives = [reference.unconditional for reference in references]
    pictures = []
    for trajectory in range(-(-draws // TRAJECTORY_STEPS)):
        noise = torch.randn(size, generator=generator(*seed, _NOISE, trajectory))
        start = noise.repeat(len(references), 1, 1, 1)
        pictures.append(
            draw_latents(model, prompts, negatives, start, gates, TRAJECTORY_STEPS, record)
        )
    return recorded, torch.stack(pictures)
