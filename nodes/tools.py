"""Nodes that make one LoRA of something else: a smaller one, the difference of two models."""

from __future__ import annotations

import json
from typing import Any

import comfy.model_management
import comfy.utils
from comfy_api.latest import io, ui

from ..ziplora_core.comfy_adapter.extract import extract, two_text_encoders, two_unets
from ..ziplora_core.comfy_adapter.free_memory import memory_advice
from ..ziplora_core.errors import problem
from ..ziplora_core.files import lora_from_tensors
from ..ziplora_core.files.metadata import inherited
from ..ziplora_core.files.writer import lora_model
from ..ziplora_core.layers import LAYER_CHOICES
from ..ziplora_core.low_rank import RESIZE_METHODS, resized
from ..ziplora_core.report import resize_report
from ..ziplora_core.states import generator
from .outputs import lora_output, report_output
from .training_inputs import seed_input
from .types import bias_and_norm_input


class ResizeLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ResizeLoRA",
            display_name="Resize LoRA",
            category="ZipLoRA/tools",
            description="Reduces a LoRA to a lower rank, module by module, with the smallest "
            "error there is (SVD of its factors).",
            search_aliases=["ziplora", "lora rank", "shrink lora", "smaller lora", "svd"],
            inputs=[
                io.LoraModel.Input(
                    "lora", tooltip="From Import LoRA, or a training or merging node."
                ),
                io.Int.Input(
                    "rank",
                    default=32,
                    min=0,
                    max=4096,
                    tooltip="No module gets more than this. 0: no limit, for energy and frobenius.",
                ),
                io.Combo.Input(
                    "method",
                    options=list(RESIZE_METHODS),
                    default="rank",
                    tooltip="rank: every module to rank. energy: each module to the smallest rank "
                    "that keeps threshold of its squared norm. frobenius: of its norm (sv_fro in "
                    "kohya's resize_lora).",
                ),
                io.Float.Input(
                    "threshold",
                    default=0.9,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="For energy and frobenius: how much each module keeps. 1 keeps every "
                    "direction that counts, 0 only the strongest one.",
                ),
                bias_and_norm_input(),
            ],
            outputs=[lora_output(), report_output()],
        )

    @classmethod
    def execute(
        cls, lora: Any, rank: int, method: str, threshold: float, bias_and_norm: Any = "refuse"
    ) -> io.NodeOutput:
        if method == "rank" and not rank:
            raise problem(
                "rank",
                found="0 with method=rank",
                expected="the rank to reduce to",
                advice="Set rank to 1 or more, or choose method=energy or frobenius.",
            )
        read = lora_from_tensors(lora, bias_and_norm=bias_and_norm)
        with memory_advice("Unload ComfyUI's models"):
            parts = resized(read.modules, method, rank, threshold)
        report = resize_report(read, parts, method, rank, threshold)
        settings = {"method": method, "rank": rank, "threshold": threshold}
        metadata = inherited(read.metadata) | {"ziplora.resized": json.dumps(settings)}
        small = lora_model({name: part.factors for name, part in parts.items()}, metadata)
        return io.NodeOutput(small, report, ui=ui.PreviewText(report))


class ExtractLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ExtractLoRA",
            display_name="Extract LoRA",
            category="ZipLoRA/tools",
            description="Makes a LoRA of what a tuned SDXL model has learned beyond its base. "
            "LoRAs on either MODEL count; nothing is clamped.",
            search_aliases=["ziplora", "model difference", "checkpoint to lora", "svd"],
            inputs=[
                io.Model.Input("model_tuned", tooltip="The fine-tuned checkpoint."),
                io.Model.Input("model_base", tooltip="The checkpoint it was trained from."),
                io.Int.Input(
                    "rank",
                    default=64,
                    min=1,
                    max=4096,
                    tooltip="Size of the LoRA. A narrower layer gets its own width.",
                ),
                io.Combo.Input(
                    "layers",
                    options=list(LAYER_CHOICES),
                    default="all",
                    tooltip="Which layers of the UNet: all of them, or a smaller choice for a "
                    "smaller file.",
                ),
                seed_input("Of the randomised SVD; hardly changes the result."),
                io.Clip.Input(
                    "clip_tuned", optional=True, tooltip="The tuned CLIP, with clip_base."
                ),
                io.Clip.Input("clip_base", optional=True, tooltip="The base CLIP."),
            ],
            outputs=[lora_output(), report_output()],
        )

    @classmethod
    def execute(
        cls,
        model_tuned: Any,
        model_base: Any,
        rank: int,
        layers: str,
        seed: int,
        clip_tuned: Any | None = None,
        clip_base: Any | None = None,
    ) -> io.NodeOutput:
        if (clip_tuned is None) != (clip_base is None):
            raise problem(
                "clip_tuned and clip_base",
                found="only one of the two",
                expected="both, or neither",
                advice="Connect the CLIP of each checkpoint, or leave both open.",
            )
        parts = [two_unets(model_tuned, model_base, layers)]
        if clip_tuned is not None:
            parts.append(two_text_encoders(clip_tuned, clip_base))
        bar = comfy.utils.ProgressBar(1)

        def step(done: int, layers_in_all: int) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            bar.update_absolute(done, layers_in_all)

        found = extract(parts, rank, generator(seed), step)
        settings = json.dumps({"rank": rank, "layers": layers, "seed": seed})
        metadata = {"ziplora.method": "extract", "ziplora.settings": settings}
        report = found.report(rank)
        lora = lora_model(found.factors(), metadata)
        return io.NodeOutput(lora, report, ui=ui.PreviewText(report))


NODES = [ResizeLoRA, ExtractLoRA]
