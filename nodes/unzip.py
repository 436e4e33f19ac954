"""What to do with a picture that was taken apart: draw with it, exchange halves, bring files in."""

from __future__ import annotations

from typing import Any

import folder_paths
from comfy_api.latest import io, ui

from ..ziplora_core.comfy_adapter.paths import lora_path
from ..ziplora_core.comfy_adapter.unzip_apply import with_own_prompts
from ..ziplora_core.comfy_adapter.unzip_import import import_unzip
from ..ziplora_core.merge import MergedLoRA
from ..ziplora_core.unzip import CONCEPTS
from ..ziplora_core.unzip_merges import recombine, recombine_report
from .outputs import report_output, unzipped_output
from .progress import log_warnings
from .types import NONE, MergedLoRAType, describe_lora, file_fingerprint


def _strength_input(concept: str, what: str) -> io.Float.Input:
    return io.Float.Input(
        f"{concept}_strength",
        default=1.0,
        min=-10.0,
        max=10.0,
        step=0.05,
        tooltip=f"How strongly the {what} counts: 1 as learned, 0 not at all.",
    )


class ApplyUnZipLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ApplyUnZipLoRA",
            display_name="Apply UnZipLoRA",
            category="ZipLoRA/unzip",
            description="Puts both LoRAs of UnZipLoRA on a model for one picture: each reads its "
            "own prompt in the cross-attention, as while it was learned. The sampler gets the "
            "joint prompt.",
            search_aliases=["ziplora", "unziplora", "prompt separation", "subject and style"],
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint to draw with."),
                MergedLoRAType.Input(
                    "merged", tooltip="From UnZipLoRA Train, Recombine, Import or Load Merged LoRA."
                ),
                io.Conditioning.Input(
                    "content_conditioning",
                    tooltip="The picture's prompt without the style's words: “a monadikos cat on "
                    "a skateboard”. As long as the sampler's, or shorter.",
                ),
                io.Conditioning.Input(
                    "style_conditioning",
                    tooltip="The picture's prompt without the subject's own name: “a cat on a "
                    "skateboard in sketch style”.",
                ),
                _strength_input("content", "subject"),
                _strength_input("style", "style"),
            ],
            outputs=[
                io.Model.Output("MODEL", tooltip="With both LoRAs on it, each with its own prompt.")
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
        patched, lines = with_own_prompts(
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
            description="Joins the subject of one picture with the style of another, without "
            "learning anything again.",
            search_aliases=["ziplora", "unziplora", "swap style", "cross image", "style transfer"],
            inputs=[
                MergedLoRAType.Input("content_from", tooltip="Whose subject."),
                MergedLoRAType.Input("style_from", tooltip="Whose style."),
            ],
            outputs=[unzipped_output()],
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
                tooltip=f"OUT_{concept}/pytorch_lora_weights.safetensors, below a loras folder.",
            )
            for concept in CONCEPTS
        ]
        mergers = [
            io.Combo.Input(
                f"{concept}_merger",
                options=[NONE, *files],
                default=NONE,
                optional=True,
                tooltip=f"OUT_merger_{concept}.pth: how much each feature counts beside the other "
                "LoRA. None: all of them fully.",
            )
            for concept in CONCEPTS
        ]
        return io.Schema(
            node_id="ImportUnZipLoRA",
            display_name="Import UnZipLoRA (authors' files)",
            category="ZipLoRA/unzip",
            description="Reads the two LoRAs that the authors' program has trained, and the "
            "mergers it saves beside them, for Apply UnZipLoRA.",
            search_aliases=["ziplora", "unziplora", "convert lora", "diffusers"],
            inputs=[
                io.Model.Input(
                    "model", tooltip="The SDXL checkpoint whose layers the files are laid against."
                ),
                *loras,
                *mergers,
            ],
            outputs=[
                unzipped_output(),
                report_output(),
            ],
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
        merged, read = import_unzip(model.model, loras, mergers)
        lines = []
        for concept, lora in zip(CONCEPTS, read, strict=True):
            folded = "its mergers folded in" if concept in mergers else "without mergers"
            lines += [*describe_lora(concept, lora), f"  {folded}"]
        report = "\n".join(lines)
        return io.NodeOutput(merged, report, ui=ui.PreviewText(report))


NODES = [ApplyUnZipLoRA, RecombineUnZipLoRA, ImportUnZipLoRA]
