"""Noisy samples from reference latents, or from pictures that the LoRAs draw themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...errors import problem
from ...training.branches import Gates
from ...training.noisy_samples import TEACHERS, NoisySample, Teacher, with_targets
from ...training.random import Stream, draw_timesteps, generator
from ..model.conditioning import Conditioning
from ..model.family import guided_halves, latent_shape
from ..model.sampler import sample_latents
from ..model.training_model import TrainingModel

TRAJECTORY_STEPS = 25


def reference_latents(model: Any, latent: Any, name: str) -> Tensor:
    """Convert a LATENT to the model's latent space, `(n, c, [1,] h, w)` float32, on the CPU.

    Raises:
        ZipLoRAError: a latent with another number of channels or axes, more than one frame, NaN or
            infinity, a mask, or only zeros.
    """
    samples = latent["samples"]
    expected = latent_shape(model, 0, 0)[:-2]  # channels, and one frame where there are frames
    found = None
    nested = getattr(samples, "is_nested", False)
    if not nested and samples.shape[1:2] == expected[:1] and samples.shape[2:-2].numel() > 1:
        found = f"a video of {samples.shape[2]} frames"
    elif nested or samples.shape[1:-2] != expected:
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
            expected=f"pictures encoded by this checkpoint's VAE, {expected[0]} channels",
            advice="Connect VAE Encode of a reference picture, or leave the input unconnected.",
        )
    return model.process_latent_in(samples.detach().clone().float().cpu())


@dataclass(frozen=True)
class Reference:
    """A teacher with its prompt and reference pictures.

    Args:
        teacher: the gates of content and style: one LoRA alone, or both.
        prompt, unconditional: the teacher's prompt, and the zeroed prompt.
        latents: the latents of reference pictures; None if the teacher draws its own.
    """

    teacher: Teacher
    prompt: Conditioning
    unconditional: Conditioning
    latents: Tensor | None


def evaluations(
    model: TrainingModel,
    references: Sequence[Reference],
    draws: int,
    held_out: int,
    targets: bool = True,
) -> int:
    """Count the evaluations for `draws` and then `held_out` samples per teacher."""
    trajectory = guided_halves(model.model) * TRAJECTORY_STEPS * -(-draws // TRAJECTORY_STEPS)
    asked = draws if targets else 0
    return sum(held_out + (trajectory if r.latents is None else asked) for r in references)


def draw_pictures(
    model: TrainingModel,
    references: Sequence[Reference],
    size: tuple[int, ...],
    draws: int,
    *seed: int,
    negative_strength: float = 1.0,
) -> tuple[list[list[NoisySample]], list[Reference]]:
    """Let every teacher without latents draw its own pictures, as many at once as there are kinds.

    Args:
        model: a model with a content and a style branch.
        references: the reference of each teacher.
        size: the latent size `(c, [1,] h, w)` of the pictures.
        draws: the least number of samples per teacher; each picture gives 25.
        seed: the seed of the starting noise, which all teachers share.
        negative_strength: a factor on the teachers' LoRAs in guidance's unconditional half.

    Returns:
        the samples of the trajectories (empty for a teacher with latents), and the references with
        latents.
    """
    samples: list[list[NoisySample]] = [[] for _ in references]
    complete = list(references)
    without = [i for i, reference in enumerate(references) if reference.latents is None]
    for first in range(0, len(without), len(TEACHERS)):
        together = without[first : first + len(TEACHERS)]
        drawing = [references[i] for i in together]
        recorded, pictures = _trajectories(model, drawing, size, draws, seed, negative_strength)
        for n, i in enumerate(together):
            samples[i] = recorded[n]
            complete[i] = replace(references[i], latents=pictures[:, n])
    return samples, complete


def noisy_samples(
    model: TrainingModel, reference: Reference, draws: int, *seed: int, targets: bool = True
) -> list[NoisySample]:
    """Add noise to a teacher's latents and compute the teacher's targets.

    Equal seeds and sizes give all teachers the same noise and the same timesteps.

    Args:
        model: a model with a content and a style branch.
        reference: the reference, with latents.
        draws: the number of samples.
        seed: the seed of timesteps and noise.
        targets: whether targets are computed.
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
) -> list[NoisySample]:
    """Draw noisy versions of reference latents: x_t = x0 + σ(t)·noise, t uniform."""
    sampling = model.sampling
    timesteps = draw_timesteps(draws, len(sampling.sigmas), generator(*seed, Stream.TIMESTEPS))
    rng = generator(*seed, Stream.NOISE)
    samples = []
    for i, sigma in enumerate(model.place(model.sigmas[timesteps])):
        x0 = latents[i % len(latents)].to(model.device)
        noise = torch.randn(x0.shape, generator=rng).to(model.device)
        samples.append(NoisySample(sampling.noise_scaling(sigma, noise, x0), sigma, conditioning))
    return samples


def _trajectories(
    model: TrainingModel,
    references: Sequence[Reference],
    size: tuple[int, ...],
    draws: int,
    seed: tuple[int, ...],
    negative_strength: float,
) -> tuple[list[list[NoisySample]], Tensor]:
    """Record (x_t, σ, prediction) while all teachers draw as one batch, from the same noise.

    Returns:
        the samples of each teacher, and the pictures `(picture, teacher, c, [1,] h, w)`.
    """
    recorded: list[list[NoisySample]] = [[] for _ in references]
    prompts = [reference.prompt for reference in references]

    def record(x: Tensor, sigma: Tensor, x0: Tensor) -> None:
        prediction = model.prediction(x, sigma, x0)
        for i, samples in enumerate(recorded):
            samples.append(NoisySample(x[i], sigma[i], prompts[i], prediction[i]))

    gates = Gates(torch.tensor([reference.teacher for reference in references]), learned=False)
    negatives = [reference.unconditional for reference in references]
    pictures = []
    for trajectory in range(-(-draws // TRAJECTORY_STEPS)):
        noise = torch.randn(size, generator=generator(*seed, Stream.NOISE, trajectory))
        start = noise.repeat(len(references), *[1] * noise.ndim)
        drawn = sample_latents(
            model, prompts, negatives, start, gates, TRAJECTORY_STEPS, record,
            negative_strength=negative_strength,
        )  # fmt: skip
        pictures.append(drawn)
    return recorded, torch.stack(pictures)
