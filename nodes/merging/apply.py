"""The node that puts a merge on a model."""

from __future__ import annotations

import logging
from typing import Any

from comfy_api.latest import io, ui

from ...ziplora_core.comfy_adapter.apply.guidance import with_negative_strength
from ...ziplora_core.comfy_adapter.apply.lora import apply_lora
from ...ziplora_core.lora.magnitude import huge_updates
from ...ziplora_core.lora.merged import MergedLoRA
from ..shared.progress import log_warnings
from ..shared.sampling_inputs import negative_strength_input
from ..shared.types import merged_input, no_clip
from .inputs import block_inputs, chosen_blocks

logger = logging.getLogger(__name__)

_NAME = "merged LoRA"
_ONE_PROMPT = (
    "content and style both read the one prompt here; Apply UnZipLoRA gives each its own prompt, "
    "as in training"
)
_MADE_FOR = (
    "WARNING: this merge was made for negative_strength {:g} and is drawn with {:g}: subject or "
    "style may be too weak or too strong"
)
_TEXT_ENCODER = (
    "the text-encoder part acts on every prompt encoded with this node's CLIP: encode the negative "
    "prompt with the checkpoint's own to leave it out"
)


class ApplyMergedLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ApplyMergedLoRA",
            display_name="Apply Merged LoRA",
            category="ZipLoRA/merge",
            description="Puts a merge on a model, with separate strengths for content and style, "
            "as in the ZipLoRA paper. Encode your prompt with the CLIP output of this node.",
            search_aliases=["ziplora", "style strength", "content strength"],
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint that the merge was made for."),
                merged_input(),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="The checkpoint's CLIP. Needed when the CLIP output is used, and for "
                    "LoRAs with a text-encoder part.",
                ),
                io.Float.Input(
                    "content_strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip="Strength of the subject: 1 is as merged, 0 turns it off.",
                ),
                io.Float.Input(
                    "style_strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip="Strength of the style: 1 is as merged. The paper shows 1, 0.7 and "
                    "0.4.",
                ),
                *block_inputs("In addition to the strengths: ", "all", advanced=True),
                negative_strength_input(
                    ". At 0 the "
                    "UNet predicts it without the merge, so that CFG leads towards subject and "
                    "style, too, and the style above all acts more strongly: with Merge LoRAs, "
                    "try strengths such as 0.9 and 0.7; ZipLoRA Optimize learns for 0 and 1 / 1. "
                    "1 is as with any LoRA loader. Below 1, the merge runs beside the layers, "
                    "which takes more time. At CFG 1 there is no negative prompt: set all to 1."
                ),
            ],
            outputs=[
                io.Model.Output("MODEL", tooltip="The model with the merge on it."),
                io.Clip.Output(
                    "CLIP", tooltip="The CLIP with the text-encoder parts of both LoRAs."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        merged: MergedLoRA,
        clip: Any | None = None,
        content_strength: float = 1.0,
        style_strength: float = 1.0,
        block_preset: str = "all",
        blocks: str = "",
        negative_strength: float = 0.0,
    ) -> io.NodeOutput:
        by_block = chosen_blocks(block_preset, blocks)
        weights = [(content_strength * c, style_strength * s) for c, s in by_block.values()]
        merged.check_strengths(weights)
        modules = merged.modules(content_strength, style_strength, by_block)
        if clip is None and merged.text_encoder:
            logger.warning(
                "ApplyMergedLoRA: no CLIP is connected, so the merge's %d text-encoder modules are "
                "not applied.",
                len(merged.text_encoder),
            )
        lines = [_strengths(content_strength, style_strength, negative_strength)]
        if merged.prompt_separated:
            lines.append(_ONE_PROMPT)
        if merged.negative_strength not in (None, negative_strength):
            lines.append(_MADE_FOR.format(merged.negative_strength, negative_strength))
        if negative_strength == 1:
            patched, patched_clip = apply_lora(modules, _NAME, model, clip)
        else:
            patched, more = with_negative_strength(model, modules, _NAME, negative_strength)
            _, patched_clip = apply_lora(modules, _NAME, None, clip)
            lines += [*more, *([_TEXT_ENCODER] if merged.text_encoder else [])]
        report = "\n".join([*lines, *huge_updates(modules)])
        log_warnings("ApplyMergedLoRA", report)
        return io.NodeOutput(patched, patched_clip or no_clip("CLIP"), ui=ui.PreviewText(report))


def _strengths(content: float, style: float, negative: float) -> str:
    """Say what a merge is drawn with."""
    share = {0.0: "without the merge", 1.0: "with the merge, too"}
    drawn = share.get(negative, f"with {negative:g} of the merge")
    return f"content {content:g}, style {style:g}; the negative prompt is drawn {drawn}"


NODES = [ApplyMergedLoRA]
