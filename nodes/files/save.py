"""Nodes that write LoRA files for all programs."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ...ziplora_core.comfy_adapter.folders import check_prefix, save_lora
from ...ziplora_core.errors import ZipLoRAError
from ...ziplora_core.files import lora_from_tensors
from ...ziplora_core.files.merge_file import merged_metadata
from ...ziplora_core.files.metadata import inherited
from ...ziplora_core.files.writer import DTYPES, WrittenFile
from ...ziplora_core.lora.merged import MergedLoRA, truncated
from ...ziplora_core.merging.report import truncation_line
from ...ziplora_core.training.checkpoint import mark_saved
from ..shared.lora_inputs import bias_and_norm_input
from ..shared.outputs import lora_name_output
from ..shared.types import merged_input


def _prefix_input(default: str) -> io.String.Input:
    return io.String.Input(
        "filename_prefix",
        default=default,
        tooltip="The file's name inside output/loras, which every LoRA loader lists. A number is "
        "added.",
    )


def dtype_input() -> io.Combo.Input:
    return io.Combo.Input(
        "dtype",
        options=list(DTYPES),
        default="fp16",
        tooltip="Most LoRAs are fp16. fp32 is exact and twice the size.",
    )


def _valid(prefix: str | None) -> bool | str:
    """Validate a prefix for ComfyUI, which shows an error before anything is queued.

    A linked prefix is None here; it is checked when the node runs.
    """
    if prefix is None:
        return True
    try:
        check_prefix(prefix)
    except ZipLoRAError as error:
        return str(error)
    return True


def saved(name: str, written: WrittenFile, lines: list[str]) -> io.NodeOutput:
    report = "\n".join(
        [
            f"saved: {written.path}",
            f"read back and compared: largest relative error of a module {written.error:.1e}",
            *lines,
            f"SHA-256 {written.sha256}",
        ]
    )
    return io.NodeOutput(name, ui=ui.PreviewText(report))


def _listed_line(name: str) -> str:
    return f"press R, and LoRA loaders list it as {name}"


class SaveMergedLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SaveMergedLoRA",
            display_name="Save Merged LoRA",
            category="ZipLoRA/save",
            description="Saves a merge as one ordinary LoRA file for ComfyUI, Forge, kohya and "
            "diffusers. With rank 0 the file is exact, and Load Merged LoRA can still weigh "
            "content and style separately.",
            search_aliases=["ziplora", "export lora", "save lora"],
            is_output_node=True,
            inputs=[
                merged_input(),
                _prefix_input("ziplora"),
                io.Int.Input(
                    "rank",
                    default=0,
                    min=0,
                    max=4096,
                    tooltip="0 saves the exact merge, with rank content + style. Any other value "
                    "saves the closest LoRA of this rank, with the error in the report.",
                ),
                dtype_input(),
            ],
            outputs=[lora_name_output()],
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None) -> bool | str:
        return _valid(filename_prefix)

    @classmethod
    def execute(
        cls, merged: MergedLoRA, filename_prefix: str, rank: int, dtype: str
    ) -> io.NodeOutput:
        lines = []
        if rank:
            exact, (merged, error) = merged, truncated(merged, rank)
            lines = [truncation_line(rank, error, merged is not exact)]
        description = "Content and style merged by the ZipLoRA pack for ComfyUI"
        name, written = save_lora(
            merged.modules(), filename_prefix, dtype, description, merged_metadata(merged)
        )
        mark_saved(merged, name)
        return saved(name, written, [_listed_line(name), *lines])


class SaveTrainedLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SaveTrainedLoRA",
            display_name="Save Trained LoRA",
            category="ZipLoRA/save",
            description="Saves a LORA_MODEL as an ordinary LoRA file, with the metadata that LoRA "
            "managers and other programs look for.",
            search_aliases=["ziplora", "export lora", "save lora"],
            is_output_node=True,
            inputs=[
                io.LoraModel.Input(
                    "lora",
                    tooltip="From a training or merging node, or Import, Resize or Extract LoRA.",
                ),
                _prefix_input("trained_lora"),
                dtype_input(),
                bias_and_norm_input(),
            ],
            outputs=[lora_name_output()],
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None) -> bool | str:
        return _valid(filename_prefix)

    @classmethod
    def execute(
        cls, lora: Any, filename_prefix: str, dtype: str, bias_and_norm: Any = "refuse"
    ) -> io.NodeOutput:
        read = lora_from_tensors(lora, bias_and_norm=bias_and_norm)
        description = "LoRA saved by the ZipLoRA pack for ComfyUI"
        name, written = save_lora(
            read.modules, filename_prefix, dtype, description, inherited(read.metadata)
        )
        mark_saved(lora, name)
        return saved(name, written, [_listed_line(name), *read.notes])


NODES = [SaveMergedLoRA, SaveTrainedLoRA]
