"""The same picture at several scales of sliders, or at several strengths of a merge."""

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
from ..merge import MergedLoRA
from .apply import apply_lora
from .concept_slider import with_slider
from .free_memory import memory_advice

OnPicture = Callable[[int, int], None]


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


def parse_scales(text: str, name: str, zero: bool = False) -> list[float]:
    """Read numbers with commas or spaces between them.

    Args:
        text: what was typed.
        name: of the input, for messages.
        zero: 0 alone is enough: it is the merge's other half, but a slider that is always off.

    Raises:
        ZipLoRAError: none, none but 0, or something that is no number.
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
) -> Tensor:
    """Draw a picture for every content strength (columns) at every style strength (rows).

    As Fig. 9 of the ZipLoRA paper (Shah et al. 2023, arXiv:2311.13600).

    Args:
        model, vae, sampling, on_picture: as `sweep`.
        merged: only its UNet part is weighed; the prompts are encoded already.
        strengths: content's, style's.

    Returns:
        pictures `(row, column, h, w, 3)` in 0…1.

    Raises:
        ZipLoRAError: unequal strengths for a merge that is not separable.
    """
    content, style = strengths
    merged.check_strengths(list(product(content, style)))

    def at(row: float, column: float) -> Any:
        modules = {n: f for n, f in merged.modules(column, row).items() if n in merged.pairs}
        return apply_lora(modules, "merged LoRA", model, None)[0]

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
        drawn.append(_draw(model_at(*cell), vae, sampling))
    on_picture(len(cells), len(cells))
    return torch.stack(drawn).unflatten(0, (len(rows), len(columns)))


def _draw(model: Any, vae: Any, how: Sampling) -> Tensor:
    latent = comfy.sample.fix_empty_latent_channels(model, how.latent["samples"][:1])
    noise = comfy.sample.prepare_noise(latent, how.seed)
    drawn = comfy.sample.sample(
        model, noise, how.steps, how.cfg, how.sampler_name, how.scheduler, how.positive,
        how.negative, latent, disable_pbar=True, seed=how.seed,
    )  # fmt: skip
    return vae.decode(drawn)[0].float().cpu().clamp(0, 1)
