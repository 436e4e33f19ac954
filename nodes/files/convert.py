"""Nodes that import LoRA files from other programs and export LoRAs for them."""

from __future__ import annotations

from typing import Any

import folder_paths
from comfy_api.latest import io, ui

from ...ziplora_core.comfy_adapter.folders import check_prefix, lora_path
from ...ziplora_core.comfy_adapter.tools.convert import (
    FORMATS,
    UNET_ONLY,
    import_lora,
    save_export,
)
from ...ziplora_core.errors import ZipLoRAError, refuse_unknown
from ...ziplora_core.files import lora_from_tensors
from ...ziplora_core.files.metadata import inherited
from ...ziplora_core.files.writer import lora_model
from ...ziplora_core.training.checkpoint import mark_saved
from ..shared.lora_inputs import bias_and_norm_input, file_fingerprint, picked_files
from ..shared.outputs import lora_output, report_output
from ..shared.types import describe_lora
from .save import dtype_input, saved


class ImportLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ImportLoRA",
            display_name="Import LoRA (any format)",
            category="ZipLoRA/tools",
            description="Reads a LoRA file from any program, including files that ComfyUI loads "
            "only in part or not at all: PEFT, diffusers, dense ZipLoRA, cloneofsimo. If one "
            "module does not fit the model, the whole file is refused.",
            search_aliases=["ziplora", "convert lora", "peft", "diffusers lora", "cloneofsimo"],
            inputs=[
                io.Model.Input(
                    "model", tooltip="The model whose layers the file is matched against."
                ),
                io.Combo.Input(
                    "lora",
                    options=folder_paths.get_filename_list("loras"),
                    tooltip="A .safetensors, .pt, .ckpt or .bin file in one of ComfyUI's loras "
                    "folders. Put a PEFT folder there as a whole and pick "
                    "adapter_model.safetensors.",
                ),
                bias_and_norm_input(),
            ],
            outputs=[lora_output(), report_output()],
        )

    @classmethod
    def validate_inputs(cls, lora: str | None = None) -> bool | str:
        return picked_files(lora=lora)

    @classmethod
    def fingerprint_inputs(cls, lora: str = "", **_others: Any) -> object:
        return file_fingerprint(lora)

    @classmethod
    def execute(cls, model: Any, lora: str, bias_and_norm: Any = "refuse") -> io.NodeOutput:
        read, modules = import_lora(lora_path(lora), model.model, bias_and_norm)
        report = "\n".join(describe_lora("imported", read))
        imported = lora_model(modules, inherited(read.metadata))
        return io.NodeOutput(imported, report, ui=ui.PreviewText(report))


class ExportLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ExportLoRA",
            display_name="Export LoRA (other programs)",
            category="ZipLoRA/tools",
            description="Writes a LoRA file with the key names that another program expects: "
            "kohya, ComfyUI's own, PEFT, diffusers, and the public programs of Concept Sliders and "
            "ZipLoRA. The file is read back and compared before "
            "its path is reported.",
            search_aliases=["ziplora", "convert lora", "peft", "diffusers lora", "save lora"],
            is_output_node=True,
            inputs=[
                io.LoraModel.Input("lora", tooltip="From a training, merging or tool node."),
                io.String.Input(
                    "filename_prefix",
                    default="exported_lora",
                    tooltip="The file's name inside the format's folder. A number is added.",
                ),
                io.Combo.Input(
                    "format",
                    options=list(FORMATS),
                    default="kohya",
                    tooltip="kohya: read by every program. comfy: ComfyUI's own names. sliders: "
                    "a .pt file for the public Concept Sliders, lora_unet_down_blocks_…, UNet "
                    "only. These three are written to output/loras. peft: a folder for PeftModel, "
                    "UNet only. diffusers: one file for load_lora_weights. ziplora: a file for "
                    "the public ZipLoRA (mkshing's), unet.unet.….lora.up.weight, UNet only. These "
                    "three are written to output/ziplora/exports, because ComfyUI would load "
                    "only a part of them, or nothing.",
                ),
                dtype_input(),
                bias_and_norm_input(),
            ],
            outputs=[
                io.String.Output("path", tooltip="Path of the file, or of the folder with peft.")
            ],
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None, format: str | None = None) -> bool | str:
        """Check the prefix before a run, as in `save`; a linked input is None here."""
        if filename_prefix is None:
            return True
        try:
            if format is not None:
                refuse_unknown("format", format, FORMATS)
            check_prefix(filename_prefix, FORMATS.get(format or "", "loras"))
        except ZipLoRAError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        lora: Any,
        filename_prefix: str,
        format: str,
        dtype: str,
        bias_and_norm: Any = "refuse",
    ) -> io.NodeOutput:
        read = lora_from_tensors(lora, bias_and_norm=bias_and_norm)
        written, notes = save_export(read, filename_prefix, format, dtype, inherited(read.metadata))
        if format not in UNET_ONLY or not read.text_encoder():  # the file has all of it
            mark_saved(lora, written.path.name)
        path = written.path.parent if format == "peft" else written.path
        return saved(str(path), written, [*notes, *read.notes])


NODES = [ImportLoRA, ExportLoRA]
