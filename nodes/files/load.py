"""Nodes that read LoRAs: a content and style pair, or a saved merge."""

from __future__ import annotations

from typing import Any

import folder_paths
from comfy_api.latest import io, ui

from ...ziplora_core.comfy_adapter.apply.lora import apply_lora
from ...ziplora_core.comfy_adapter.folders import lora_path
from ...ziplora_core.comfy_adapter.model.pair_on_model import compare_loras
from ...ziplora_core.files import read_lora
from ...ziplora_core.files.merge_file import merged_from_lora
from ...ziplora_core.files.same_base import refuse_two_bases
from ...ziplora_core.files.writer import lora_model
from ...ziplora_core.lora.comparison import (
    idle_unets,
    norm_lines,
    refuse_no_update,
    sameness_warnings,
)
from ...ziplora_core.lora.factors import LoRA
from ...ziplora_core.lora.magnitude import huge_updates
from ...ziplora_core.lora.pair import LoRAPair, scaled
from ...ziplora_core.training.report import compose
from ..shared.before_run import UNLINKED, checked
from ..shared.lora_inputs import (
    NONE,
    WITH_BASES,
    bias_and_norm_input,
    check_either,
    file_fingerprint,
    lora_file_input,
    picked_files,
    read_either,
)
from ..shared.outputs import merged_output, report_output
from ..shared.progress import log_warnings
from ..shared.types import LoRAPairType, describe_lora, no_clip


def _file_input(concept: str, what: str) -> io.Combo.Input:
    return lora_file_input(
        f"{concept}_lora",
        f"The LoRA file of your {what}. Choose None when {concept}_lora_model is connected.",
    )


def _strength_input(concept: str) -> io.Float.Input:
    return io.Float.Input(
        f"{concept}_strength",
        default=1.0,
        min=-10.0,
        max=10.0,
        step=0.05,
        tooltip=f"The strength at which the {concept} LoRA alone looks right on this checkpoint.",
    )


class LoadLoRAPair(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoadLoRAPair",
            display_name="Load LoRA Pair (content + style)",
            category="ZipLoRA/load",
            description="Reads a subject LoRA and a style LoRA in any common file format. Encode "
            "each LoRA's own prompt with its own CLIP output.",
            search_aliases=["ziplora", "load two loras", "subject and style", "lora pair"],
            inputs=[
                _file_input("content", "subject"),
                _file_input("style", "style"),
                _strength_input("content"),
                _strength_input("style"),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="The checkpoint's CLIP. Needed for the two CLIP outputs.",
                ),
                io.LoraModel.Input(
                    "content_lora_model",
                    optional=True,
                    tooltip="A subject LoRA straight from a training or merging node, in place of "
                    "a file.",
                ),
                io.LoraModel.Input(
                    "style_lora_model",
                    optional=True,
                    tooltip="A style LoRA straight from a training or merging node, in place of a "
                    "file.",
                ),
                bias_and_norm_input(),
            ],
            outputs=[
                LoRAPairType.Output(
                    "pair", tooltip="Both LoRAs, for ZipLoRA Optimize or Merge LoRAs."
                ),
                io.Clip.Output(
                    "content_clip", tooltip="CLIP for encoding the subject LoRA's own prompt."
                ),
                io.Clip.Output(
                    "style_clip", tooltip="CLIP for encoding the style LoRA's own prompt."
                ),
                report_output(),
            ],
        )

    @classmethod
    def validate_inputs(
        cls,
        content_lora: str | None = None,
        style_lora: str | None = None,
        content_lora_model: object = UNLINKED,
        style_lora_model: object = UNLINKED,
    ) -> bool | str:
        return checked(
            lambda: picked_files(content_lora=content_lora, style_lora=style_lora),
            check_either("content_lora", content_lora, content_lora_model),
            check_either("style_lora", style_lora, style_lora_model),
        )

    @classmethod
    def fingerprint_inputs(
        cls, content_lora: str = NONE, style_lora: str = NONE, **_others: Any
    ) -> list[object]:
        return [file_fingerprint(content_lora), file_fingerprint(style_lora)]

    @classmethod
    def execute(
        cls,
        content_lora: str,
        style_lora: str,
        content_strength: float,
        style_strength: float,
        clip: Any | None = None,
        content_lora_model: Any | None = None,
        style_lora_model: Any | None = None,
        bias_and_norm: str = "refuse",
    ) -> io.NodeOutput:
        content = read_either("content_lora", content_lora, content_lora_model, bias_and_norm)
        style = read_either("style_lora", style_lora, style_lora_model, bias_and_norm)
        for lora, concept in ((content, "content"), (style, "style")):
            refuse_no_update(lora, concept)
        refuse_two_bases(content, style)
        pair = LoRAPair(content, style, content_strength, style_strength)
        compared = compare_loras(pair)
        warnings = [*idle_unets(pair), *sameness_warnings(compared)]
        clips = [
            _with_text_encoder(clip, content, content_strength) or no_clip("content_clip"),
            _with_text_encoder(clip, style, style_strength) or no_clip("style_clip"),
        ]
        report = compose(
            [
                *(f"WARNING: {warning}" for warning in warnings),
                *huge_updates(scaled(content.modules, content_strength)),
                *huge_updates(scaled(style.modules, style_strength)),
                *describe_lora("content", content, clip is not None),
                *describe_lora("style", style, clip is not None),
                *norm_lines(compared, pair),
            ]
        )
        log_warnings("LoadLoRAPair", report)
        return io.NodeOutput(pair, *clips, report, ui=ui.PreviewText(report))


class LoadMergedLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoadMergedLoRA",
            display_name="Load Merged LoRA",
            category="ZipLoRA/load",
            description="Reads a merge that Save Merged LoRA wrote. Content and style are still "
            "separate. Any LoRA loader reads the file too, as one LoRA.",
            search_aliases=["ziplora", "merged lora loader"],
            inputs=[
                io.Combo.Input(
                    "merged_lora",
                    options=folder_paths.get_filename_list("loras"),
                    tooltip="A file that Save Merged LoRA wrote. Press R after saving a new one.",
                    extra_dict=WITH_BASES,
                )
            ],
            outputs=[
                merged_output(),
                io.LoraModel.Output(
                    "lora", tooltip="The same merge as one LoRA, e.g. for one half of another pair."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, merged_lora: str | None = None) -> bool | str:
        return picked_files(merged_lora=merged_lora)

    @classmethod
    def fingerprint_inputs(cls, merged_lora: str = NONE) -> object:
        return file_fingerprint(merged_lora)

    @classmethod
    def execute(cls, merged_lora: str) -> io.NodeOutput:
        merged = merged_from_lora(read_lora(lora_path(merged_lora)))
        return io.NodeOutput(merged, lora_model(merged.modules(), merged.metadata))


def _with_text_encoder(clip: Any | None, lora: LoRA, strength: float) -> Any | None:
    if clip is None:
        return None
    return apply_lora(scaled(lora.text_encoder(), strength), lora.name, None, clip)[1]


NODES = [LoadLoRAPair, LoadMergedLoRA]
