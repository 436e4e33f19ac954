"""Inputs, progress and grid output of the nodes that generate image grids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import comfy.model_management
import comfy.samplers
import comfy.utils
from comfy_api.latest import io
from torch import Tensor

from ...ziplora_core.plots import grid
from .training_inputs import seed_input
from .types import as_image, theme_of

Axis = tuple[str, Sequence[float]]
"""The label of an axis, and its numbers."""


def drawing_inputs() -> list[Any]:
    """Prompts, size and VAE of every image, without the model."""
    return [
        io.Conditioning.Input("positive", tooltip="The encoded prompt, as for KSampler."),
        io.Conditioning.Input("negative", tooltip="The encoded negative prompt, as for KSampler."),
        io.Latent.Input(
            "latent",
            tooltip="From Empty Latent Image: sets the image size. Only the first latent of a "
            "batch is used.",
        ),
        io.Vae.Input("vae", tooltip="The checkpoint's VAE, to decode the images."),
    ]


def sampling_inputs(seed: str = "Seed of the noise, the same for every image.") -> list[Any]:
    """KSampler's widgets, the same for every image; `seed` begins the tooltip of that input."""
    return [
        seed_input(seed, makes="result"),
        io.Int.Input(
            "steps",
            default=25,
            min=1,
            max=10000,
            tooltip="Number of sampling steps, as in KSampler.",
        ),
        io.Float.Input(
            "cfg",
            default=7.0,
            min=0.0,
            max=100.0,
            step=0.1,
            tooltip="Scale of classifier-free guidance, as in KSampler.",
        ),
        io.Combo.Input(
            "sampler_name",
            options=comfy.samplers.KSampler.SAMPLERS,
            default="euler",
            tooltip="The sampler, as in KSampler.",
        ),
        io.Combo.Input(
            "scheduler",
            options=comfy.samplers.KSampler.SCHEDULERS,
            default="normal",
            tooltip="The noise schedule, as in KSampler.",
        ),
    ]


def negative_strength_input(tooltip: str, optional: bool = True) -> io.Float.Input:
    """The merge's strength for the negative prompt; `tooltip` goes on after what it is."""
    return io.Float.Input(
        "negative_strength",
        default=0.0,
        min=0.0,
        max=1.0,
        step=0.05,
        optional=optional,
        tooltip=f"Strength of the merge on the UNet for the negative prompt{tooltip}",
    )


def progress_callback(node: type[io.ComfyNode]) -> Callable[[int, int], None]:
    """Make the progress callback of a long task: it moves the node's bar and may cancel."""
    bar = comfy.utils.ProgressBar(1, node_id=str(node.hidden.unique_id))

    def on_part(done: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, total)

    return on_part


def as_grid(pictures: Tensor, theme: str, across: Axis, down: Axis = ("", ())) -> io.NodeOutput:
    """Output images `(row, column, h, w, 3)` as one grid, and as single images."""
    columns, rows = ([f"{number:g}" for number in numbers] for _, numbers in (across, down))
    drawn = grid(pictures, columns, rows, across[0], down[0], theme_of(theme))
    return io.NodeOutput(as_image(drawn), pictures.flatten(0, 1))
