"""Nodes that join a pair without learning, and put a merge on a model."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from comfy_api.latest import io, ui

from ..ziplora_core.comfy_adapter.apply import apply_lora
from ..ziplora_core.comfy_adapter.calibration import CalibrationPrompts, calibrate
from ..ziplora_core.comfy_adapter.pairs import merge_pair
from ..ziplora_core.files.writer import lora_model
from ..ziplora_core.merge import MergedLoRA
from ..ziplora_core.merge_methods import CALIBRATED, METHODS, MergeSettings
from ..ziplora_core.pairing import LoRAPair
from ..ziplora_core.trainable import Watch
from .merge_inputs import block_inputs, calibration_inputs, chosen_blocks, weight_input
from .outputs import lora_output, merged_output, report_output
from .progress import log_warnings, progress_bar
from .types import merged_input, no_clip, pair_input

logger = logging.getLogger(__name__)

_ONE_PROMPT = (
    "content and style both read the one prompt here; Apply UnZipLoRA gives each its own, as while "
    "they learned"
)


class MergeLoRAs(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MergeLoRAs",
            display_name="Merge LoRAs (no training)",
            category="ZipLoRA/merge",
            description="Joins a content and a style LoRA without training: the baseline to "
            "compare ZipLoRA with.",
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
                io.Model.Input("model", tooltip="The checkpoint the LoRAs belong to."),
                pair_input(),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default="direct",
                    tooltip="direct: the exact weighted sum (ZipLoRA paper, eq. 1), the same as "
                    "two LoRA loaders in a row. factor_average: cloneofsimo's lpl, which averages "
                    "the factors. It is NOT a weighted sum (products of one LoRA's up with the "
                    "other's down come in) and is here for compatibility. svd: the weighted sum "
                    "by its strongest directions, as many as rank says. null_space: the content "
                    "gives way where the style acts (NP-LoRA). norm_balance: the style gets the "
                    "content's strength in every layer. norm_cap: the sum, no stronger than the "
                    "stronger of the two. block_masks: each in its own blocks (B-LoRA). ties, "
                    "knots: where the two disagree, the stronger decides. tsv: both made "
                    "independent of each other. rank_space: each keeps doing what it does at its "
                    "own prompt (SSR-Merge; needs both prompts).",
                ),
                weight_input("content"),
                weight_input("style"),
                io.Int.Input(
                    "rank",
                    default=0,
                    min=0,
                    max=4096,
                    advanced=True,
                    tooltip="0: all there is, rank content + style. Otherwise the closest LoRA of "
                    "this rank; then the two can no longer be weighed separately.",
                ),
                io.Float.Input(
                    "mu",
                    default=0.5,
                    min=0.0,
                    max=1000.0,
                    step=0.05,
                    optional=True,
                    advanced=True,
                    tooltip="null_space: how strongly the style is protected. 0: the plain sum; "
                    "0.5, the paper's: a third of the content's part in the style's directions "
                    "goes; 1000: nearly all of it.",
                ),
                io.Float.Input(
                    "density",
                    default=0.5,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    advanced=True,
                    tooltip="ties and knots: the share of each LoRA's largest entries that counts.",
                ),
                *block_inputs("block_masks: ", "b_lora"),
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
            watch = Watch(on_prepare=progress_bar(prompts.evaluations))
            seen = calibrate(model, pair, prompts, watch)
            settings, notes = replace(settings, moments=seen.moments), [seen.report]
        elif prompts.connected():
            notes = [f"the prompts change nothing: {method} with rank 0 does not look at pictures"]
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
            description="Puts a merge on a model, with content and style strength apart, as in "
            "the ZipLoRA paper. Encode the joint prompt with the CLIP from here.",
            search_aliases=["ziplora", "style strength", "content strength"],
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint to draw with."),
                merged_input(),
                io.Clip.Input("clip", optional=True, tooltip="For LoRAs with a text-encoder part."),
                io.Float.Input(
                    "content_strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip="How strongly the subject counts: 1 as merged, 0 not at all.",
                ),
                io.Float.Input(
                    "style_strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip="How strongly the style counts: 1 as merged; the paper shows 1, 0.7 "
                    "and 0.4.",
                ),
                *block_inputs("", "all"),
            ],
            outputs=[
                io.Model.Output("MODEL", tooltip="With the merge on it."),
                io.Clip.Output("CLIP", tooltip="With both LoRAs' text-encoder parts."),
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
        patched, patched_clip = apply_lora(modules, "merged LoRA", model, clip)
        outputs = patched, patched_clip or no_clip("CLIP")
        if merged.prompt_separated:
            return io.NodeOutput(*outputs, ui=ui.PreviewText(_ONE_PROMPT))
        return io.NodeOutput(*outputs)


NODES = [MergeLoRAs, ApplyMergedLoRA]
