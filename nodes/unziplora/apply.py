"""Nodes that apply, recombine and import UnZipLoRA merges."""

from __future__ import annotations

from typing import Any

import folder_paths
from comfy_api.latest import io, ui

from ...ziplora_core.comfy_adapter.apply.unziplora import with_unziplora
from ...ziplora_core.comfy_adapter.folders import lora_path
from ...ziplora_core.comfy_adapter.tools.unziplora_import import import_unziplora
from ...ziplora_core.lora.merged import MergedLoRA
from ...ziplora_core.unziplora.objective import CONCEPTS
from ...ziplora_core.unziplora.separate_prompts import recombine, recombine_report
from ..shared.lora_inputs import NONE, file_fingerprint, picked_files
from ..shared.outputs import report_output, unziplora_output
from ..shared.progress import log_warnings
from ..shared.types import MergedLoRAType, describe_lora


def _strength_input(concept: str, what: str) -> io.Float.Input:
    return io.Float.Input(
        f"{concept}_strength",
        default=1.0,
        min=-10.0,
        max=10.0,
        step=0.05,
        tooltip=f"Strength of the {what}: 1 is as learned, 0 turns it off.",
    )


class ApplyUnZipLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ApplyUnZipLoRA",
            display_name="Apply UnZipLoRA",
            category="ZipLoRA/unzip",
            description="Puts both LoRAs of UnZipLoRA on a model for one image. Each LoRA reads "
            "its own prompt in the cross-attention, as in training; the sampler gets the joint "
            "prompt.",
            search_aliases=["ziplora", "unziplora", "prompt separation", "subject and style"],
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint to put the LoRAs on."),
                MergedLoRAType.Input(
                    "merged",
                    tooltip="From UnZipLoRA Train, Recombine UnZipLoRA, Import UnZipLoRA or Load "
                    "Merged LoRA.",
                ),
                io.Conditioning.Input(
                    "content_conditioning",
                    tooltip="The image's prompt without the style words, e.g. “a monadikos cat on "
                    "a skateboard”.",
                ),
                io.Conditioning.Input(
                    "style_conditioning",
                    tooltip="The image's prompt without the rare word, e.g. “a cat on a skateboard "
                    "in sketch style”.",
                ),
                _strength_input("content", "subject"),
                _strength_input("style", "style"),
            ],
            outputs=[
                io.Model.Output(
                    "MODEL", tooltip="The model with both LoRAs on it, each with its own prompt."
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        merged: MergedLoRA,
        content_conditioning: Any,
        style_conditioning: Any,
        content_strength: float,
        style_strength: float,
    ) -> io.NodeOutput:
        patched, lines = with_unziplora(
            model,
            merged,
            (content_conditioning, style_conditioning),
            (content_strength, style_strength),
        )
        report = "\n".join(lines)
        log_warnings("ApplyUnZipLoRA", report)
        return io.NodeOutput(patched, ui=ui.PreviewText(report))


class RecombineUnZipLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RecombineUnZipLoRA",
            display_name="Recombine UnZipLoRA",
            category="ZipLoRA/unzip",
            description="Combines the subject of one image with the style of another, without "
            "training again.",
            search_aliases=["ziplora", "unziplora", "swap style", "cross image", "style transfer"],
            inputs=[
                MergedLoRAType.Input(
                    "content_from",
                    tooltip="The merge that provides the subject: from UnZipLoRA Train, Recombine "
                    "UnZipLoRA, Import UnZipLoRA or Load Merged LoRA.",
                ),
                MergedLoRAType.Input(
                    "style_from",
                    tooltip="The merge that provides the style: from UnZipLoRA Train, Recombine "
                    "UnZipLoRA, Import UnZipLoRA or Load Merged LoRA.",
                ),
            ],
            outputs=[unziplora_output()],
        )

    @classmethod
    def execute(cls, content_from: MergedLoRA, style_from: MergedLoRA) -> io.NodeOutput:
        merged = recombine(content_from, style_from)
        return io.NodeOutput(merged, ui=ui.PreviewText(recombine_report(merged)))


class ImportUnZipLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        files = folder_paths.get_filename_list("loras")
        loras = [
            io.Combo.Input(
                f"{concept}_lora",
                options=files,
                tooltip=f"OUT_{concept}/pytorch_lora_weights.safetensors, below a loras folder. "
                "OUT is the output name that you gave the program.",
            )
            for concept in CONCEPTS
        ]
        mergers = [
            io.Combo.Input(
                f"{concept}_merger",
                options=[NONE, *files],
                default=NONE,
                optional=True,
                tooltip=f"OUT_merger_{concept}.pth: the weight of each feature for use beside the "
                "other LoRA. None: all features have full weight.",
            )
            for concept in CONCEPTS
        ]
        return io.Schema(
            node_id="ImportUnZipLoRA",
            display_name="Import UnZipLoRA (authors' files)",
            category="ZipLoRA/unzip",
            description="Reads the files of the UnZipLoRA authors' own program, for Apply "
            "UnZipLoRA: two LoRAs, and the mergers saved beside them.",
            search_aliases=["ziplora", "unziplora", "convert lora", "diffusers"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The SDXL checkpoint whose layers the files are matched against.",
                ),
                *loras,
                *mergers,
            ],
            outputs=[
                unziplora_output(),
                report_output(),
            ],
        )

    @classmethod
    def validate_inputs(
        cls,
        content_lora: str | None = None,
        style_lora: str | None = None,
        content_merger: str | None = None,
        style_merger: str | None = None,
    ) -> bool | str:
        return picked_files(
            content_lora=content_lora,
            style_lora=style_lora,
            content_merger=content_merger,
            style_merger=style_merger,
        )

    @classmethod
    def fingerprint_inputs(cls, **files: Any) -> list[object]:
        return [file_fingerprint(name) for name in files.values() if isinstance(name, str)]

    @classmethod
    def execute(cls, model: Any, **files: str) -> io.NodeOutput:
        loras = {concept: lora_path(files[f"{concept}_lora"]) for concept in CONCEPTS}
        mergers = {
            concept: lora_path(name)
            for concept in CONCEPTS
            if (name := files.get(f"{concept}_merger", NONE)) != NONE
        }
        merged, read = import_unziplora(model.model, loras, mergers)
        lines = []
        for concept, lora in zip(CONCEPTS, read, strict=True):
            folded = "its mergers folded in" if concept in mergers else "without mergers"
            lines += [*describe_lora(concept, lora), f"  {folded}"]
        report = "\n".join(lines)
        return io.NodeOutput(merged, report, ui=ui.PreviewText(report))


NODES = [ApplyUnZipLoRA, RecombineUnZipLoRA, ImportUnZipLoRA]
