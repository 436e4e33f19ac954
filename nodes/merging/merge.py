"""Nodes that merge a pair without training, and that put a merge on a model."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from comfy_api.latest import io, ui

from ...ziplora_core.comfy_adapter.apply.guidance import with_negative_strength
from ...ziplora_core.comfy_adapter.apply.lora import apply_lora
from ...ziplora_core.comfy_adapter.model.pair_on_model import merge_pair
from ...ziplora_core.comfy_adapter.tools.calibration import CalibrationPrompts, calibrate
from ...ziplora_core.files.writer import lora_model
from ...ziplora_core.lora.merged import MergedLoRA
from ...ziplora_core.lora.pair import LoRAPair
from ...ziplora_core.merging import CALIBRATED, METHODS, MergeSettings
from ...ziplora_core.training.interface import ProgressCallbacks
from ..shared.outputs import lora_output, merged_output, report_output
from ..shared.progress import log_warnings, progress_bar
from ..shared.sampling_inputs import negative_strength_input
from ..shared.types import merged_input, no_clip, pair_input
from .inputs import block_inputs, calibration_inputs, chosen_blocks, weight_input

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


class MergeLoRAs(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MergeLoRAs",
            display_name="Merge LoRAs (no training)",
            category="ZipLoRA/merge",
            description="Merges a content LoRA and a style LoRA without training: the baseline to "
            "compare ZipLoRA Optimize with.",
            search_aliases=[
                "ziplora",
                "lora merge",
                "combine loras",
                "direct merge",
                "join loras",
                "svd",
                "lpl",
                "np-lora",
                "b-lora",
                "ties",
                "knots",
                "tsv",
                "ssr-merge",
            ],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The checkpoint of both LoRAs. With rank_space, and with a lower rank "
                    "and prompts connected, it also draws the calibration images.",
                ),
                pair_input(),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default="direct",
                    tooltip="direct: the exact weighted sum (ZipLoRA paper, eq. 1), the same as "
                    "two LoRA loaders in a row. factor_average: averages up with up and "
                    "down with down, for compatibility: it equals cloneofsimo's lpl where the two "
                    "weights sum to 1, and divides others by their sum, which lpl does not. It is "
                    "NOT a weighted sum, because it contains products of one LoRA's up with the "
                    "other's down. "
                    "svd: the weighted sum, reduced to its strongest directions; rank sets their "
                    "number. null_space: the content gives way in the directions of the style "
                    "(NP-LoRA). norm_balance: the style is scaled to the content's norm in every "
                    "layer. norm_cap: the sum, scaled down to the norm of the stronger of the two. "
                    "block_masks: each LoRA acts in its own blocks only (B-LoRA). ties, knots: "
                    "where the two disagree in sign, the stronger one wins. tsv: the directions of "
                    "the two are made independent. rank_space: each LoRA keeps the effect it has "
                    "at its own prompt (SSR-Merge; needs both prompts).",
                ),
                weight_input("content"),
                weight_input("style"),
                io.Int.Input(
                    "rank",
                    default=0,
                    min=0,
                    max=4096,
                    advanced=True,
                    tooltip="0 keeps the full rank; content and style then stay separable with "
                    "direct, null_space, norm_balance, norm_cap, block_masks and rank_space. Any "
                    "other value gives the closest LoRA of that rank, in which the two are mixed.",
                ),
                io.Float.Input(
                    "mu",
                    default=0.5,
                    min=0.0,
                    max=1000.0,
                    step=0.05,
                    optional=True,
                    advanced=True,
                    tooltip="For null_space: how strongly the style is protected. 0 is the plain "
                    "sum. 0.5, the paper's value, removes a third of the content in the style's "
                    "directions; 1000 removes nearly all of it.",
                ),
                io.Float.Input(
                    "density",
                    default=0.5,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    advanced=True,
                    tooltip="For ties and knots: the share of each LoRA's entries that is kept, "
                    "largest first.",
                ),
                *block_inputs("For block_masks: ", "b_lora"),
                *calibration_inputs(),
            ],
            outputs=[
                merged_output(),
                lora_output(),
                report_output(),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        pair: LoRAPair,
        method: str,
        content_weight: float,
        style_weight: float,
        rank: int = 0,
        mu: float = 0.5,
        density: float = 0.5,
        block_preset: str = "b_lora",
        blocks: str = "",
        content_conditioning: Any | None = None,
        style_conditioning: Any | None = None,
        joint_conditioning: Any | None = None,
        **drawing: int,
    ) -> io.NodeOutput:
        by_block = chosen_blocks(block_preset, blocks)
        settings = MergeSettings(
            content_weight,
            style_weight,
            rank,
            mu,
            density,
            by_block,
            on_module=progress_bar(len(pair.content.modules)),
        )
        prompts = CalibrationPrompts(
            content_conditioning, style_conditioning, joint_conditioning, **drawing
        )
        notes = []
        if prompts.connected() and (method in CALIBRATED or rank):
            callbacks = ProgressCallbacks(on_prepare=progress_bar(prompts.evaluations))
            seen = calibrate(model, pair, prompts, callbacks)
            settings, notes = replace(settings, moments=seen.moments), [seen.report]
        elif prompts.connected():
            notes = [f"the prompts are not used: {method} with rank 0 needs no calibration images"]
        merged, report = merge_pair(model.model, pair, method, settings)
        report = "\n".join([report, *notes])
        log_warnings("MergeLoRAs", report)
        lora = lora_model(merged.modules(), merged.metadata)
        return io.NodeOutput(merged, lora, report, ui=ui.PreviewText(report))


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
                *block_inputs("In addition to the strengths: ", "all"),
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
            log_warnings("ApplyMergedLoRA", lines[-1])
        if negative_strength == 1:
            patched, patched_clip = apply_lora(modules, _NAME, model, clip)
        else:
            patched, more = with_negative_strength(model, modules, _NAME, negative_strength)
            _, patched_clip = apply_lora(modules, _NAME, None, clip)
            lines += [*more, *([_TEXT_ENCODER] if merged.text_encoder else [])]
        report = ui.PreviewText("\n".join(lines))
        return io.NodeOutput(patched, patched_clip or no_clip("CLIP"), ui=report)


def _strengths(content: float, style: float, negative: float) -> str:
    """Say what a merge is drawn with."""
    share = {0.0: "without the merge", 1.0: "with the merge, too"}
    drawn = share.get(negative, f"with {negative:g} of the merge")
    return f"content {content:g}, style {style:g}; the negative prompt is drawn {drawn}"


NODES = [MergeLoRAs, ApplyMergedLoRA]
