"""The task of all contenders: a model with a pair's branches, and noisy samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from sandbox import tiny
from ziplora_core.comfy_adapter.model import conditioning as cond
from ziplora_core.comfy_adapter.model.targets import unet_targets
from ziplora_core.comfy_adapter.model.training_model import TrainingModel, training_model
from ziplora_core.lora.pair import ModulePair
from ziplora_core.training.branches import Branches, Gates
from ziplora_core.training.noisy_samples import TEACHERS, NoisySample, predict
from ziplora_core.training.random import draw_timesteps, generator

from .models import Scale, make_model, random_pairs, random_prompt, unet_config

COUNT = 25
"""Calibration samples per concept, for the closed form."""
SHOWN = 4
"""The part of them that steps take in turn; a merge computes 32 targets, which takes long."""


@dataclass(frozen=True)
class Task:
    """One size of the benchmark, ready to run.

    Args:
        opened: the model, with the branches on it.
        pairs, branches: pairs and branches by kohya name.
        keys: weight key by kohya name.
        states: noisy samples of content and style, without targets; they share noise and timesteps.
    """

    scale: Scale
    opened: TrainingModel
    pairs: Mapping[str, ModulePair]
    branches: Mapping[str, Branches]
    keys: Mapping[str, str]
    states: tuple[list[NoisySample], list[NoisySample]]

    def describe(self) -> str:
        """Return a description of the size."""
        unet = self.opened.model.diffusion_model
        count = sum(parameter.numel() for parameter in unet.parameters())
        side, rank = self.scale.latent, self.scale.rank
        return (
            f"{self.scale.name}: {count / 1e6:,.0f} M parameters, {len(self.pairs)} attention "
            f"linears, latents {side} × {side}, rank {rank} + {rank}, "
            f"{str(self.opened.dtype).removeprefix('torch.')}"
        )

    @property
    def device(self) -> torch.device:
        return self.opened.device

    def draw(self, n: int) -> list[NoisySample]:
        """Return the n-th noisy samples of content and style."""
        return [states[n % SHOWN] for states in self.states]

    def taught(self, states: list[NoisySample]) -> list[NoisySample]:
        """Predict with both teachers in one batch of two, gated per sample."""
        with torch.no_grad():
            gates = Gates(torch.tensor(TEACHERS[:2]), learned=False)
            targets = predict(self.opened.denoise, states, gates)
        return [
            NoisySample(s.x, s.sigma, s.conditioning, t)
            for s, t in zip(states, targets, strict=True)
        ]

    @torch.no_grad()
    def base(self, n: int) -> None:
        """Run the UNet without branches on a batch of two, which is two units."""
        predict(self.opened.denoised, self.draw(n), None)


@contextmanager
def open_task(scale: Scale) -> Iterator[Task]:
    """Build the model, LoRAs of all its attention linears, and noisy samples."""
    model = make_model(scale)
    pairs = random_pairs(model.model, tiny.attention_linears(model.model), scale.rank)
    keys = unet_targets(model.model)
    branches = {name: Branches(pair.factors) for name, pair in pairs.items()}
    with training_model(model, {keys[name]: b for name, b in branches.items()}) as opened:
        states = random_states(scale, opened)
        yield Task(scale, opened, pairs, branches, keys, states)


def random_states(
    scale: Scale, opened: TrainingModel
) -> tuple[list[NoisySample], list[NoisySample]]:
    """Draw noisy latents with a prompt for each concept."""
    rng = generator(0)
    shape = (4, scale.latent, scale.latent)
    timesteps = draw_timesteps(COUNT, opened.timesteps, rng).tolist()
    noises = torch.randn(COUNT, *shape, generator=rng)
    concepts = []
    for concept in range(2):
        like = torch.zeros(1, *shape, device=opened.device)
        prompt = cond.prepare(opened.model, random_prompt(unet_config(scale), concept), like)
        picture = torch.randn(shape, generator=rng)
        noised = (opened.noised(picture, n, t) for n, t in zip(noises, timesteps, strict=True))
        concepts.append(
            [NoisySample(x.to(opened.device), s.to(opened.device), prompt) for x, s, _ in noised]
        )
    return concepts[0], concepts[1]
