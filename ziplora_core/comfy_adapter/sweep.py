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


@dataclass(frozen=True)
class Swept:
    """A slider, the scales it is drawn at, and its window as `with_slider` takes it."""

    slider: LoRA
    scales: Sequence[float]
    start_percent: float
    end_percent: float

    def on(self, model: Any, scale: float) -> Any:
        """Put it on a clone of MODEL."""
        patched, _ = with_slider(model, self.slider, scale, self.start_percent, self.end_percent)
        return patched


def parse_scales(text: str, name: str) -> list[float]:
    """Read numbers with commas or spaces between them.

    Raises:
        ZipLoRAError: none but 0, or something that is no number.
    """
    words = text.replace(",", " ").replace("−", "-").split()
    try:
        scales = [float(word) for word in words]
    except ValueError:
        scales = []
    if not any(scales) or not all(map(math.isfinite, scales)):
        raise problem(
            name,
            found=repr(text),
            expected="numbers with commas between them, not only 0",
            advice="For example: -2, -1, 0, 1, 2",
        )
    return scales


def sweep(
    model: Any,
    vae: Any,
    sliders: Sequence[Swept],
    sampling: Sampling,
    on_picture: Callable[[int, int], None] = lambda done, total: None,
) -> Tensor:
    """Draw a picture for every scale, as KSampler would.

    Args:
        model: ModelPatcher; it is not changed.
        vae: to see them by.
        sliders: one or two: columns, then rows.
        sampling: its latent's first picture gives the size.
        on_picture: told before each picture how many of how many are done.

    Returns:
        pictures `(row, column, h, w, 3)` in 0…1.
    """
    across, *down = sliders
    rows = down[0].scales if down else [0.0]
    cells = list(product(rows, across.scales))
    drawn = []
    for n, (row, column) in enumerate(cells):
        on_picture(n, len(cells))
        patched = across.on(model, column)
        if down:
            patched = down[0].on(patched, row)
        drawn.append(_draw(patched, vae, sampling))
    on_picture(len(cells), len(cells))
    return torch.stack(drawn).unflatten(0, (len(rows), len(across.scales)))


def _draw(model: Any, vae: Any, how: Sampling) -> Tensor:
    latent = comfy.sample.fix_empty_latent_channels(model, how.latent["samples"][:1])
    noise = comfy.sample.prepare_noise(latent, how.seed)
    drawn = comfy.sample.sample(
        model, noise, how.steps, how.cfg, how.sampler_name, how.scheduler, how.positive,
        how.negative, latent, disable_pbar=True, seed=how.seed,
    )  # fmt: skip
    return vae.decode(drawn)[0].float().cpu().clamp(0, 1)
