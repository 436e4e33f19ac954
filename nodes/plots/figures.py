"""Nodes that plot figures: the loss, the entries of a LoRA, the effect of a merge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import comfy.model_management
import torch
from comfy_api.latest import io, ui

from ...ziplora_core.comfy_adapter.model.memory_advice import run_or_free_memory
from ...ziplora_core.errors import problem
from ...ziplora_core.lora.merged import MergedLoRA, layer_cosines
from ...ziplora_core.lora.pruning import count_entries
from ...ziplora_core.plots import (
    coefficient_histograms,
    entries_histogram,
    layer_cosines_chart,
    loss_curves,
)
from ..shared.before_run import UNLINKED, checked
from ..shared.lora_inputs import (
    NONE,
    check_either,
    file_fingerprint,
    lora_file_input,
    picked_files,
    read_either,
)
from ..shared.outputs import report_output
from ..shared.preview import preview
from ..shared.sampling_inputs import progress_callback
from ..shared.types import as_image, merged_input, theme_input, theme_of

_CATEGORY = "ZipLoRA/look"
_SIZE = (1024, 640)


class PlotLoss(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PlotLoss",
            display_name="Plot Loss",
            category=_CATEGORY,
            description="Plots every term of a training's loss over its steps, with running means "
            "on a logarithmic axis.",
            search_aliases=["ziplora", "loss curve", "loss graph", "training chart"],
            is_output_node=True,
            inputs=[
                io.LossMap.Input(
                    "loss", tooltip="The loss output of any training node, also ComfyUI's own."
                ),
                theme_input(),
            ],
            outputs=[io.Image.Output("image", tooltip="The figure, also shown on the node.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, loss: Mapping[str, Sequence[float]], theme: str = "page") -> io.NodeOutput:
        terms = {name: [float(v) for v in values] for name, values in loss.items()}
        steps = max(map(len, terms.values()), default=0)
        if not steps:
            raise problem(
                "loss",
                found="no steps",
                expected="the loss of a training",
                advice="Train for at least one step.",
            )
        return _shown(cls, as_image(loss_curves(terms, steps, *_SIZE, theme=theme_of(theme))))


class PlotWeights(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PlotWeights",
            display_name="Plot LoRA Weights",
            category=_CATEGORY,
            description="Plots a histogram of the entries of a LoRA's updates (ZipLoRA paper, Fig. "
            "2), and reports the share of the norm that remains without the smallest 80 % and 90 % "
            "of each layer's entries.",
            search_aliases=["ziplora", "lora histogram", "weight distribution", "delta w"],
            is_output_node=True,
            inputs=[
                lora_file_input("lora", "The LoRA file. Choose None when lora_model is connected."),
                io.LoraModel.Input(
                    "lora_model",
                    optional=True,
                    tooltip="A LoRA straight from a training or merging node, in place of a file.",
                ),
                theme_input(),
            ],
            outputs=[
                io.Image.Output("image", tooltip="The figure, also shown on the node."),
                report_output(),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, lora: str | None = None, lora_model: object = UNLINKED) -> bool | str:
        return checked(lambda: picked_files(lora=lora), check_either("lora", lora, lora_model))

    @classmethod
    def fingerprint_inputs(cls, lora: str = NONE, **_others: Any) -> object:
        return file_fingerprint(lora)

    @classmethod
    def execute(
        cls, lora: str, lora_model: Any | None = None, theme: str = "page"
    ) -> io.NodeOutput:
        read = read_either("lora", lora, lora_model)
        modules, device = read.unet() or read.modules, comfy.model_management.get_torch_device()
        entries = run_or_free_memory(lambda: count_entries(modules, device, progress_callback(cls)))
        if entries is None:  # the card has too little memory
            entries = count_entries(modules, "cpu", progress_callback(cls))
        image = as_image(entries_histogram(entries, *_SIZE, theme=theme_of(theme)))
        lines = [f"{read.name}: {entries.total:,} entries, the largest {entries.largest:.3g}"]
        lines += [
            f"without the smallest {share:.0%} of every layer: {norm:.1%} of its norm"
            for share, norm in entries.kept.items()
        ]
        return _shown(cls, image, report="\n".join(lines))


class PlotMerge(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PlotMerge",
            display_name="Plot Merge",
            category=_CATEGORY,
            description="Plots, for every layer, how far content and style point in the same "
            "direction, in the plain sum and in this merge (ZipLoRA paper, Fig. 3), and a "
            "histogram of the learned coefficients.",
            search_aliases=["ziplora", "layer cosine", "merger coefficients", "merge chart"],
            is_output_node=True,
            inputs=[
                merged_input(),
                theme_input(),
            ],
            outputs=[
                io.Image.Output(
                    "cosines",
                    tooltip="The figure of the layer cosines, in the plain sum and in this merge.",
                ),
                io.Image.Output(
                    "coefficients", tooltip="The histogram of the learned coefficients."
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, merged: MergedLoRA, theme: str = "page") -> io.NodeOutput:
        cosines = layer_cosines(merged)
        if not cosines:
            raise problem(
                "merged",
                found="no layer in which content and style can be told apart",
                expected="a merge that keeps the two separate",
                advice="Plot the merge before it was reduced to a lower rank, or one of "
                "method=direct.",
            )
        chosen = theme_of(theme)
        return _shown(
            cls,
            as_image(layer_cosines_chart(cosines, *_SIZE, theme=chosen)),
            as_image(coefficient_histograms(merged.coefficients, *_SIZE, theme=chosen)),
        )


def _shown(
    node: type[io.ComfyNode], *images: torch.Tensor, report: str | None = None
) -> io.NodeOutput:
    """Output the images and the report, and show them on the node."""
    files, warning = preview(node, *images)
    lines = [line for line in (warning, report) if line]
    text = ui.PreviewText("\n".join(lines)).as_dict() if lines else {}
    shown = {"images": files, "animated": (False,), **text} if files else text
    return io.NodeOutput(*images, *([] if report is None else [report]), ui=shown)


NODES = [PlotLoss, PlotWeights, PlotMerge]
