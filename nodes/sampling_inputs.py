"""What the nodes that draw a grid of pictures have in common: inputs, progress, the grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import comfy.model_management
import comfy.samplers
import comfy.utils
from comfy_api.latest import io
from torch import Tensor

from ..ziplora_core.plots import THEMES, grid
from .training_inputs import seed_input
from .types import as_image

Axis = tuple[str, Sequence[float]]
"""What its numbers are, and the numbers."""


def drawing_inputs() -> list[Any]:
    """Prompts, size and VAE of every picture, without the model."""
    return [
        io.Conditioning.Input("positive", tooltip="The prompt, encoded."),
        io.Conditioning.Input("negative", tooltip="What the pictures are to be without."),
        io.Latent.Input("latent", tooltip="Empty Latent Image; its first picture."),
        io.Vae.Input("vae", tooltip="The checkpoint's VAE."),
    ]


def sampling_inputs() -> list[Any]:
    """KSampler's widgets, the same for every picture."""
    return [
        seed_input("Of the noise, the same for every picture."),
        io.Int.Input("steps", default=25, min=1, max=10000, tooltip="Of the sampler."),
        io.Float.Input("cfg", default=7.0, min=0.0, max=100.0, step=0.1, tooltip="Of the sampler."),
        io.Combo.Input(
            "sampler_name",
            options=comfy.samplers.KSampler.SAMPLERS,
            default="euler",
            tooltip="As in KSampler.",
        ),
        io.Combo.Input(
            "scheduler",
            options=comfy.samplers.KSampler.SCHEDULERS,
            default="normal",
            tooltip="As in KSampler.",
        ),
    ]


def counted(node: type[io.ComfyNode]) -> Callable[[int, int], None]:
    """Give what a long task is to call as it goes on: it moves the node's bar, and may cancel."""
    bar = comfy.utils.ProgressBar(1, node_id=str(node.hidden.unique_id))

    def on_part(done: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, total)

    return on_part


def as_grid(pictures: Tensor, theme: str, across: Axis, down: Axis = ("", ())) -> io.NodeOutput:
    """Give out pictures `(row, column, h, w, 3)` as one, and the single ones."""
    columns, rows = ([f"{number:g}" for number in numbers] for _, numbers in (across, down))
    drawn = grid(pictures, columns, rows, across[0], down[0], THEMES[theme])
    return io.NodeOutput(as_image(drawn), pictures.flatten(0, 1))
