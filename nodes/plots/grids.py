"""Nodes that test LoRAs: a grid of a merge's strengths, a LoRA without its small entries."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ...ziplora_core.comfy_adapter.apply.pruned import with_pruned_lora
from ...ziplora_core.comfy_adapter.apply.sweep import Sampling, parse_scales, strength_grid
from ...ziplora_core.lora.merged import MergedLoRA
from ..shared.before_run import UNLINKED, checked, unless_linked
from ..shared.lora_inputs import (
    NONE,
    check_either,
    file_fingerprint,
    lora_file_input,
    picked_files,
    read_either,
)
from ..shared.outputs import grid_outputs, report_output
from ..shared.sampling_inputs import (
    as_grid,
    drawing_inputs,
    negative_strength_input,
    progress_callback,
    sampling_inputs,
)
from ..shared.types import merged_input, theme_input


class StrengthGrid(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StrengthGrid",
            display_name="Strength Grid",
            category="ZipLoRA/look",
            description="Generates the same image at several content and style strengths of a "
            "merge, and puts the results into one labelled grid (ZipLoRA paper, Fig. 9).",
            search_aliases=["ziplora", "xy plot", "style strength grid", "content strength"],
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint, without the merge on it."),
                merged_input(),
                *drawing_inputs(),
                io.String.Input(
                    "content_strengths",
                    default="0.4, 0.7, 1",
                    tooltip="Numbers separated by commas, one column each.",
                ),
                io.String.Input(
                    "style_strengths",
                    default="0.4, 0.7, 1",
                    tooltip="Numbers separated by commas, one row each.",
                ),
                *sampling_inputs(),
                theme_input(),
                negative_strength_input(", as in Apply Merged LoRA."),
            ],
            outputs=grid_outputs(),
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(
        cls, content_strengths: str | None = None, style_strengths: str | None = None
    ) -> bool | str:
        return checked(
            unless_linked(_content, content_strengths),
            unless_linked(_style, style_strengths),
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        merged: MergedLoRA,
        vae: Any,
        content_strengths: str,
        style_strengths: str,
        theme: str = "page",
        negative_strength: float = 0.0,
        **sampling: Any,
    ) -> io.NodeOutput:
        content, style = _content(content_strengths), _style(style_strengths)
        pictures = strength_grid(
            model, vae, merged, (content, style), Sampling(**sampling), progress_callback(cls),
            negative_strength,
        )  # fmt: skip
        axes = ("content strength", content), ("style strength", style)
        return as_grid(pictures, theme, *axes)


def _content(text: str) -> list[float]:
    return parse_scales(text, "content_strengths", zero=True)


def _style(text: str) -> list[float]:
    return parse_scales(text, "style_strengths", zero=True)


class PruneLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PruneLoRA",
            display_name="Prune LoRA",
            category="ZipLoRA/look",
            description="Puts a LoRA on the model with the smallest entries of its updates set to "
            "zero, because most entries hardly matter (ZipLoRA paper, Fig. 2).",
            search_aliases=["ziplora", "sparse lora", "zero small weights", "magnitude pruning"],
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint to put the LoRA on."),
                lora_file_input("lora", "The LoRA file. Choose None when lora_model is connected."),
                io.Float.Input(
                    "prune",
                    default=0.8,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="The share of each layer's entries to zero, smallest first. The paper "
                    "reports no visible loss up to 0.9; its appendix says 0.8.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip="Strength of the LoRA, as in a LoRA loader.",
                ),
                io.LoraModel.Input(
                    "lora_model",
                    optional=True,
                    tooltip="A LoRA straight from a training or merging node, in place of a file.",
                ),
            ],
            outputs=[
                io.Model.Output("MODEL", tooltip="The model with the pruned LoRA on it."),
                report_output(),
            ],
        )

    @classmethod
    def validate_inputs(cls, lora: str | None = None, lora_model: object = UNLINKED) -> bool | str:
        return checked(lambda: picked_files(lora=lora), check_either("lora", lora, lora_model))

    @classmethod
    def fingerprint_inputs(cls, lora: str = NONE, **_others: Any) -> object:
        return file_fingerprint(lora)

    @classmethod
    def execute(
        cls, model: Any, lora: str, prune: float, strength: float, lora_model: Any | None = None
    ) -> io.NodeOutput:
        read = read_either("lora", lora, lora_model)
        patched, lines = with_pruned_lora(model, read, prune, strength)
        report = "\n".join([*lines, *read.notes])
        return io.NodeOutput(patched, report, ui=ui.PreviewText(report))


NODES = [StrengthGrid, PruneLoRA]
