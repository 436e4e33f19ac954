"""Grids of pictures at several scales of sliders, or at several strengths of a merge."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import comfy.sample
import torch
from torch import Tensor

from ...errors import problem
from ...lora.factors import LoRA
from ...lora.merged import MergedLoRA
from ..model.memory_advice import memory_advice
from .guidance import with_merge
from .slider import with_slider

OnPicture = Callable[[int, int], None]


@dataclass(frozen=True)
class Sampling:
    """The sampler's settings for all pictures, as in KSampler."""

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
    """A slider, its scales, and its window as in `with_slider`."""

    slider: LoRA
    scales: Sequence[float]
    start_percent: float
    end_percent: float

    def on(self, model: Any, scale: float) -> Any:
        """Put the slider on a clone of MODEL."""
        patched, _ = with_slider(model, self.slider, scale, self.start_percent, self.end_percent)
        return patched


def parse_scales(text: str, name: str, zero: bool = False) -> list[float]:
    """Read numbers with commas or spaces between them.

    Args:
        text: the text of the input.
        name: the input's name, for messages.
        zero: whether 0 alone is allowed: it is useful for a merge, but turns a slider off.

    Raises:
        ZipLoRAError: no number, only 0 without `zero`, or text that is not a finite number.
    """
    words = text.replace(",", " ").replace("−", "-").split()
    try:
        scales = [float(word) for word in words]
    except ValueError:
        scales = []
    if not (any(scales) or (zero and scales)) or not all(map(math.isfinite, scales)):
        raise problem(
            name,
            found=repr(text),
            expected="numbers with commas between them" + ("" if zero else ", not only 0"),
            advice=f"For example: {'0, 0.4, 0.7, 1' if zero else '-2, -1, 0, 1, 2'}",
        )
    return scales


@memory_advice("Connect a smaller latent")
def sweep(
    model: Any,
    vae: Any,
    sliders: Sequence[Swept],
    sampling: Sampling,
    on_picture: OnPicture = lambda done, total: None,
) -> Tensor:
    """Draw a picture for every scale, as KSampler does.

    Args:
        model: the ModelPatcher, which is not changed.
        vae: the VAE that decodes the pictures.
        sliders: one slider for the columns, and optionally one for the rows.
        sampling: the sampler's settings; the first picture of the latent gives the size.
        on_picture: a callback before each picture and at the end, given (done, total).

    Returns:
        the pictures `(row, column, h, w, 3)` in 0…1.
    """
    across, *down = sliders

    def at(row: float, column: float) -> Any:
        patched = across.on(model, column)
        return down[0].on(patched, row) if down else patched

    rows = down[0].scales if down else [0.0]
    return _draw_all(rows, across.scales, at, vae, sampling, on_picture)


@memory_advice("Connect a smaller latent")
def strength_grid(
    model: Any,
    vae: Any,
    merged: MergedLoRA,
    strengths: tuple[Sequence[float], Sequence[float]],
    sampling: Sampling,
    on_picture: OnPicture = lambda done, total: None,
    negative_strength: float = 1.0,
) -> Tensor:
    """Draw a picture for every content strength (columns) at every style strength (rows).

    This is Fig. 9 of the ZipLoRA paper (Shah et al. 2023, arXiv:2311.13600).

    Args:
        model, vae, sampling, on_picture: see `sweep`.
        merged: the merge; only its UNet part is used, because the prompts are already encoded.
        strengths: the content strengths and the style strengths.
        negative_strength: see `with_negative_strength`.

    Returns:
        the pictures `(row, column, h, w, 3)` in 0…1.

    Raises:
        ZipLoRAError: unequal strengths for a merge that is not separable.
    """
    content, style = strengths
    merged.check_strengths(list(product(content, style)))

    def at(row: float, column: float) -> Any:
        modules = {n: f for n, f in merged.modules(column, row).items() if n in merged.pairs}
        return with_merge(model, modules, "merged LoRA", negative_strength)[0]

    return _draw_all(style, content, at, vae, sampling, on_picture)


def _draw_all(
    rows: Sequence[float],
    columns: Sequence[float],
    model_at: Callable[[float, float], Any],
    vae: Any,
    sampling: Sampling,
    on_picture: OnPicture,
) -> Tensor:
    cells = list(product(rows, columns))
    drawn = []
    for n, cell in enumerate(cells):
        on_picture(n, len(cells))
        drawn.append(draw_picture(model_at(*cell), vae, sampling))
    on_picture(len(cells), len(cells))
    return torch.stack(drawn).unflatten(0, (len(rows), len(columns)))


def draw_picture(model: Any, vae: Any, how: Sampling) -> Tensor:
    """Draw the first picture of the latent, as KSampler and VAE Decode do.

    Args:
        model: the ModelPatcher.
        vae: the VAE that decodes it.
        how: the sampler's settings.

    Returns:
        the picture `(h, w, 3)` in 0…1, float32, on the CPU.
    """
    latent = comfy.sample.fix_empty_latent_channels(model, how.latent["samples"][:1])
    noise = comfy.sample.prepare_noise(latent, how.seed)
    drawn = comfy.sample.sample(
        model, noise, how.steps, how.cfg, how.sampler_name, how.scheduler, how.positive,
        how.negative, latent, disable_pbar=True, seed=how.seed,
    )  # fmt: skip
    return vae.decode(drawn).flatten(0, -4)[0].float().cpu().clamp(0, 1)  # of a video, a frame
