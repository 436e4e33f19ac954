"""The same picture at several scales of one slider, or of two."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import comfy.sample
import torch
from torch import Tensor

from ..errors import problem
from ..lora import LoRA
from .concept_slider import with_slider


@dataclass(frozen=True)
class Sampling:
    """How every picture is drawn: KSampler's inputs."""

    positive: Any
    negative: Any
    latent: Any
    seed: int
    steps: int
    cfg: float
    sampler_name: str
    scheduler: str


def parse_scales(text: str, name: str) -> list[float]:
    """Read numbers with commas or spaces between them.

    Raises:
        ZipLoRAError: none, or something that is no number.
    """
    words = text.replace(",", " ").replace("−", "-").split()
    try:
        scales = [float(word) for word in words]
    except ValueError:
        scales = []
    if not scales or not all(map(math.isfinite, scales)):
        raise problem(
            name,
            found=repr(text),
            expected="numbers with commas between them",
            advice="For example: -2, -1, 0, 1, 2",
        )
    return scales


def sweep(
    model: Any,
    vae: Any,
    sliders: Sequence[tuple[LoRA, Sequence[float]]],
    window: tuple[float, float],
    sampling: Sampling,
    on_picture: Callable[[int, int], None] = lambda done, total: None,
) -> Tensor:
    """Draw a picture for every scale, as KSampler would.

    Args:
        model: ModelPatcher; it is not changed.
        vae: to see them by.
        sliders: one or two, each with its scales: columns, then rows.
        window: start and end percent of both.
        sampling: its latent's first picture gives the size.
        on_picture: told before each picture how many of how many are done.

    Returns:
        pictures `(row, column, h, w, 3)` in 0…1.
    """
    (first, columns), *others = sliders
    rows = others[0][1] if others else [0.0]
    drawn = []
    for n, (row, column) in enumerate(product(rows, columns)):
        on_picture(n, len(rows) * len(columns))
        patched, _ = with_slider(model, first, column, *window)
        if others:
            patched, _ = with_slider(patched, others[0][0], row, *window)
        drawn.append(_draw(patched, vae, sampling))
    on_picture(len(drawn), len(drawn))
    return torch.stack(drawn).unflatten(0, (len(rows), len(columns)))


def _draw(model: Any, vae: Any, how: Sampling) -> Tensor:
    latent = comfy.sample.fix_empty_latent_channels(model, how.latent["samples"][:1])
    noise = comfy.sample.prepare_noise(latent, how.seed)
    drawn = comfy.sample.sample(
        model, noise, how.steps, how.cfg, how.sampler_name, how.scheduler, how.positive,
        how.negative, latent, disable_pbar=True, seed=how.seed,
    )  # fmt: skip
    return vae.decode(drawn)[0].float().cpu().clamp(0, 1)
