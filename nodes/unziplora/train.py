"""The node that separates one image into a content LoRA and a style LoRA."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from comfy_api.latest import io, ui

from ...ziplora_core.comfy_adapter.folders import checkpoint_root
from ...ziplora_core.comfy_adapter.train.dreambooth_inputs import TrainingInputs
from ...ziplora_core.comfy_adapter.train.unziplora import UnZipLoRAResult, train_unziplora
from ...ziplora_core.files.writer import lora_model
from ...ziplora_core.lora.factors import LoraModel
from ...ziplora_core.unziplora.options import UnZipLoRASettings
from ...ziplora_core.unziplora.prompts import refuse_missing_prompt
from ..shared.before_run import checked, unless_linked
from ..shared.outputs import loss_output, report_output, unziplora_output
from ..shared.progress import followed, log_warnings
from ..shared.queued import Trainer
from ..shared.training_inputs import (
    SQUARE_IMAGE,
    checkpoint_inputs,
    learning_rate_input,
    memory_input,
    rank_input,
    resolution_input,
    seed_input,
    steps_input,
    unwrap_single,
)
from .train_inputs import optional_inputs, prompt_inputs, separation_inputs, validation_inputs


class UnZipLoRATrain(Trainer):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UnZipLoRATrain",
            display_name="UnZipLoRA Train (one picture into two LoRAs)",
            category="ZipLoRA/unzip",
            description="Separates one image into a LoRA of its subject and a LoRA of its style, "
            "which fit together and combine with other LoRAs (UnZipLoRA, Liu et al. 2025).",
            search_aliases=["ziplora", "unziplora", "separate style", "train lora", "b-lora"],
            is_input_list=True,
            inputs=[
                *checkpoint_inputs(),
                io.Image.Input(
                    "image",
                    tooltip="One image. Several images of the same subject in the same style also "
                    "work.",
                ),
                *prompt_inputs(),
                rank_input(64, "Rank of each LoRA. The paper uses 64."),
                steps_input(600, "Number of training steps. The paper uses 600."),
                learning_rate_input(
                    5e-5,
                    "Learning rate of the content LoRA. The paper uses 5e-5.",
                    "content_learning_rate",
                    advanced=True,
                ),
                learning_rate_input(
                    5e-5,
                    "Learning rate of the style LoRA. The paper uses 5e-5.",
                    "style_learning_rate",
                    advanced=True,
                ),
                learning_rate_input(
                    5e-3,
                    "Learning rate of the mergers, which weigh the features that both LoRAs use. "
                    "The default is the published value.",
                    "weight_learning_rate",
                    advanced=True,
                ),
                io.Float.Input(
                    "similarity_weight",
                    default=0.5,
                    min=0.0,
                    max=1000.0,
                    step=0.01,
                    advanced=True,
                    tooltip="λ, the weight of the penalty that keeps the two LoRAs from using the "
                    "same features.",
                ),
                *separation_inputs(),
                *validation_inputs(),
                resolution_input(1024, SQUARE_IMAGE),
                seed_input(
                    "Seed of the initial values of both LoRAs, the noise and the timesteps."
                ),
                memory_input("processes class images in turn"),
                *optional_inputs(),
            ],
            outputs=[
                unziplora_output(),
                io.LoraModel.Output(
                    "content_lora",
                    tooltip="The subject, for Save Trained LoRA and any node that takes a "
                    "LORA_MODEL.",
                ),
                io.LoraModel.Output(
                    "style_lora",
                    tooltip="The style, for Save Trained LoRA and any node that takes a "
                    "LORA_MODEL.",
                ),
                loss_output(),
                report_output(),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo, io.Hidden.prompt],
        )

    @classmethod
    def validate_inputs(
        cls, prompt: list[Any], content_prompt: list[Any], style_prompt: list[Any]
    ) -> bool | str:
        given = (prompt[0], content_prompt[0], style_prompt[0])
        return checked(unless_linked(refuse_missing_prompt, *given))

    @classmethod
    def execute(
        cls, image: list[Any], class_images: list[Any] | None = None, **single: Any
    ) -> io.NodeOutput:
        values = unwrap_single(single)
        inputs = TrainingInputs(
            values.pop("model"), values.pop("clip"), values.pop("vae"), image,
            class_images=class_images,
        )  # fmt: skip
        settings = UnZipLoRASettings(**values)
        with followed(cls, settings.steps) as callbacks:
            result = train_unziplora(inputs, settings, checkpoint_root(), callbacks)
            log_warnings("UnZipLoRATrain", result.report)
            return io.NodeOutput(
                result.merged,
                *_halves(result),
                {"loss": [], **result.record.history},
                result.report,
                ui=ui.PreviewText(result.report),
            )


def _halves(result: UnZipLoRAResult) -> list[LoraModel]:
    """The content LoRA and the style LoRA; both files together contain the training's result."""
    origin = result.record.origin
    return [
        lora_model(lora.modules, lora.metadata, origin and replace(origin, part=part))
        for part, lora in (("content", result.content), ("style", result.style))
    ]


NODES = [UnZipLoRATrain]
