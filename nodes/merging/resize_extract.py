"""Nodes that make a LoRA from something else: a larger LoRA, or the difference of two models."""

from __future__ import annotations

import json
from typing import Any

import comfy.model_management
import comfy.utils
from comfy_api.latest import io, ui

from ...ziplora_core.comfy_adapter.model.family import family_of
from ...ziplora_core.comfy_adapter.model.memory_advice import memory_advice
from ...ziplora_core.comfy_adapter.tools.extract import extract, two_text_encoders, two_unets
from ...ziplora_core.errors import problem
from ...ziplora_core.files import lora_from_tensors
from ...ziplora_core.files.metadata import inherited
from ...ziplora_core.files.writer import lora_model
from ...ziplora_core.lora.layers import LAYER_CHOICES
from ...ziplora_core.lora.svd import RESIZE_METHODS, resized
from ...ziplora_core.merging.report import resize_report
from ...ziplora_core.training.random import generator
from ..shared.before_run import checked, unless_linked
from ..shared.lora_inputs import bias_and_norm_input
from ..shared.outputs import lora_output, report_output
from ..shared.training_inputs import seed_input


class ResizeLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ResizeLoRA",
            display_name="Resize LoRA",
            category="ZipLoRA/tools",
            description="Reduces a LoRA to a lower rank, module by module, with the smallest "
            "possible error (SVD of its factors).",
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
                    tooltip="The highest rank that any module may have. 0: no limit, for energy "
                    "and frobenius.",
                ),
                io.Combo.Input(
                    "method",
                    options=list(RESIZE_METHODS),
                    default="rank",
                    tooltip="rank: reduces every module to rank. energy: gives each module the "
                    "smallest rank that keeps threshold of its squared norm. frobenius: the "
                    "smallest rank that keeps threshold of its norm (sv_fro in kohya's "
                    "resize_lora).",
                ),
                io.Float.Input(
                    "threshold",
                    default=0.9,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="For energy and frobenius: the share that each module keeps. 1 keeps "
                    "every direction that counts, 0 only the strongest one.",
                ),
                bias_and_norm_input(),
            ],
            outputs=[lora_output(), report_output()],
        )

    @classmethod
    def validate_inputs(cls, rank: int | None = None, method: str | None = None) -> bool | str:
        return checked(unless_linked(_check_resize, rank, method))

    @classmethod
    def execute(
        cls, lora: Any, rank: int, method: str, threshold: float, bias_and_norm: Any = "refuse"
    ) -> io.NodeOutput:
        _check_resize(rank, method)
        read = lora_from_tensors(lora, bias_and_norm=bias_and_norm)
        with memory_advice("Unload ComfyUI's models"):
            parts = resized(read.modules, method, rank, threshold)
        report = resize_report(read, parts, method, rank, threshold)
        settings = {"method": method, "rank": rank, "threshold": threshold}
        metadata = inherited(read.metadata) | {"ziplora.resized": json.dumps(settings)}
        small = lora_model({name: part.factors for name, part in parts.items()}, metadata)
        return io.NodeOutput(small, report, ui=ui.PreviewText(report))


def _check_resize(rank: int, method: str) -> None:
    if method not in RESIZE_METHODS:
        raise problem(
            "method",
            found=repr(method),
            expected=" or ".join(RESIZE_METHODS),
            advice="Pick one of these.",
        )
    if rank < (method == "rank"):
        raise problem(
            "rank",
            found=f"{rank} with method={method}",
            expected="the rank to reduce to",
            advice="Set rank to 1 or more, or choose method=energy or frobenius.",
        )


class ExtractLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ExtractLoRA",
            display_name="Extract LoRA",
            category="ZipLoRA/tools",
            description="Makes a LoRA from the difference between a fine-tuned model and its "
            "base. LoRAs on either MODEL are included in the difference; no values are clamped.",
            search_aliases=["ziplora", "model difference", "checkpoint to lora", "svd"],
            inputs=[
                io.Model.Input(
                    "model_tuned",
                    tooltip="The fine-tuned checkpoint, or any MODEL with LoRAs on it.",
                ),
                io.Model.Input("model_base", tooltip="The checkpoint it was trained from."),
                io.Int.Input(
                    "rank",
                    default=64,
                    min=1,
                    max=4096,
                    tooltip="The rank of the LoRA. A layer narrower than this gets its own width "
                    "as rank.",
                ),
                io.Combo.Input(
                    "layers",
                    options=list(LAYER_CHOICES),
                    default="all",
                    tooltip="The layers of the UNet to extract: all of them, or fewer for a "
                    "smaller file that lacks the changes in all other layers.",
                ),
                seed_input("Seed of the randomised SVD; hardly changes the result."),
                io.Clip.Input(
                    "clip_tuned",
                    optional=True,
                    tooltip="The fine-tuned checkpoint's CLIP, to extract the text encoders as "
                    "well. Connect both CLIPs or neither.",
                ),
                io.Clip.Input(
                    "clip_base",
                    optional=True,
                    tooltip="The base checkpoint's CLIP. Connect both CLIPs or neither.",
                ),
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
        metadata = {
            **family_of(model_base.model).metadata,
            "ziplora.method": "extract",
            "ziplora.settings": settings,
        }
        report = found.report(rank)
        lora = lora_model(found.factors(), metadata)
        return io.NodeOutput(lora, report, ui=ui.PreviewText(report))


NODES = [ResizeLoRA, ExtractLoRA]
