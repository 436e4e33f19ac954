"""The node that merges a pair without training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from comfy_api.latest import io, ui

from ...ziplora_core.comfy_adapter.model.pair_on_model import merge_pair
from ...ziplora_core.comfy_adapter.tools.calibration import CalibrationPrompts, calibrate
from ...ziplora_core.files.writer import lora_model
from ...ziplora_core.lora.blocks import parse_blocks
from ...ziplora_core.lora.pair import LoRAPair
from ...ziplora_core.merging import CALIBRATED, METHODS, MergeSettings
from ...ziplora_core.training.interface import ProgressCallbacks
from ..shared.before_run import checked, unless_linked
from ..shared.outputs import lora_output, merged_output, report_output
from ..shared.progress import log_warnings, progress_bar
from ..shared.shown import used_with
from ..shared.types import pair_input
from .inputs import block_inputs, calibration_inputs, chosen_blocks, weight_input


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
                    **used_with("method", "null_space"),
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
                    **used_with("method", "ties", "knots"),
                    tooltip="For ties and knots: the share of each LoRA's entries that is kept, "
                    "largest first.",
                ),
                *block_inputs("For block_masks: ", "b_lora", **used_with("method", "block_masks")),
                *calibration_inputs(),
            ],
            outputs=[
                merged_output(),
                lora_output(),
                report_output(),
            ],
        )

    @classmethod
    def validate_inputs(cls, blocks: str | None = None) -> bool | str:
        return checked(unless_linked(parse_blocks, blocks))

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
            callbacks = ProgressCallbacks(on_prepare=progress_bar(1))
            seen = calibrate(model, pair, prompts, callbacks)
            settings, notes = replace(settings, moments=seen.moments), [seen.report]
        elif prompts.connected():
            notes = [f"the prompts are not used: {method} with rank 0 needs no calibration images"]
        merged, report = merge_pair(model.model, pair, method, settings)
        report = "\n".join([report, *notes])
        log_warnings("MergeLoRAs", report)
        lora = lora_model(merged.modules(), merged.metadata)
        return io.NodeOutput(merged, lora, report, ui=ui.PreviewText(report))


NODES = [MergeLoRAs]
