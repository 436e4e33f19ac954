"""Nodes that bring LoRA files of other programs in, and take LoRAs out to them."""

from __future__ import annotations

from typing import Any

import folder_paths
from comfy_api.latest import io, ui

from ..ziplora_core.comfy_adapter.convert import FORMATS, import_lora, save_export
from ..ziplora_core.comfy_adapter.paths import check_prefix, lora_path
from ..ziplora_core.errors import ZipLoRAError
from ..ziplora_core.files import lora_from_tensors
from ..ziplora_core.files.metadata import inherited
from ..ziplora_core.files.writer import lora_model
from .outputs import lora_output, report_output
from .save import dtype_input, saved
from .types import bias_and_norm_input, describe_lora, file_fingerprint


class ImportLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ImportLoRA",
            display_name="Import LoRA (any format)",
            category="ZipLoRA/tools",
            description="Reads a LoRA file of any program, also those that ComfyUI loads in part "
            "or not at all: PEFT, diffusers, dense ZipLoRA, cloneofsimo. Every module finds its "
            "place in the model, or the file is refused.",
            search_aliases=["ziplora", "convert lora", "peft", "diffusers lora", "cloneofsimo"],
            inputs=[
                io.Model.Input(
                    "model", tooltip="The SDXL checkpoint whose layers the file is laid against."
                ),
                io.Combo.Input(
                    "lora",
                    options=folder_paths.get_filename_list("loras"),
                    tooltip="A .safetensors, .pt, .ckpt or .bin of ComfyUI's loras folders. For "
                    "a PEFT folder put it there whole and pick adapter_model.safetensors.",
                ),
                bias_and_norm_input(),
            ],
            outputs=[lora_output(), report_output()],
        )

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
            description="Writes a LoRA with the names another program wants: kohya, ComfyUI's "
            "own, PEFT or diffusers. The file is read back and compared before it is reported.",
            search_aliases=["ziplora", "convert lora", "peft", "diffusers lora", "save lora"],
            is_output_node=True,
            inputs=[
                io.LoraModel.Input("lora", tooltip="From a training, merging or tool node."),
                io.String.Input(
                    "filename_prefix",
                    default="exported_lora",
                    tooltip="Name inside the format's folder; a number is added.",
                ),
                io.Combo.Input(
                    "format",
                    options=list(FORMATS),
                    default="kohya",
                    tooltip="kohya: read by every program. comfy: ComfyUI's own names. Both go to "
                    "output/loras. peft: a folder for PeftModel, UNet only. diffusers: one file "
                    "for load_lora_weights. Both go to output/ziplora/exports, because ComfyUI "
                    "would load only a part of them.",
                ),
                dtype_input(),
                bias_and_norm_input(),
            ],
            outputs=[io.String.Output("path", tooltip="The path of the file that was written.")],
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None, format: str | None = None) -> bool | str:
        """As in `save`; an input that arrives by a link is None here."""
        if filename_prefix is None:
            return True
        try:
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
        path = written.path.parent if format == "peft" else written.path
        return saved(str(path), written, [*notes, *read.notes])


NODES = [ImportLoRA, ExportLoRA]
