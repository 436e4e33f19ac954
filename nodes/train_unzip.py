"""One picture in, its content LoRA and its style LoRA out."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ..ziplora_core.comfy_adapter.dreambooth_inputs import Studio
from ..ziplora_core.comfy_adapter.paths import checkpoint_root
from ..ziplora_core.comfy_adapter.unzip_session import train_unzip
from ..ziplora_core.files.writer import lora_model
from ..ziplora_core.layers import LAYER_CHOICES
from ..ziplora_core.options import MERGERS, UnZipSettings
from .outputs import loss_output, report_output, unzipped_output
from .progress import followed, log_warnings
from .training_inputs import learning_rate_input, memory_input, one_of_each, seed_input
from .types import OptionsType


def _prompt_input(name: str, example: str, tooltip: str) -> io.String.Input:
    return io.String.Input(name, multiline=True, placeholder=example, tooltip=tooltip)


def _prompt_inputs() -> list[Any]:
    return [
        _prompt_input(
            "prompt",
            "a monadikos cat in sketch style",
            "What the picture shows, subject and style: a rare word that will stand for your "
            "subject (monadikos), what it is (cat), and two or three plain words for the style.",
        ),
        _prompt_input(
            "content_prompt",
            "a monadikos cat",
            "The subject without the style's words: all that the content LoRA reads.",
        ),
        _prompt_input(
            "style_prompt",
            "a cat in sketch style",
            "The style without the subject's own name: all that the style LoRA reads.",
        ),
    ]


def _separation_inputs() -> list[Any]:
    return [
        io.Boolean.Input(
            "column_separation",
            default=True,
            tooltip="Give each LoRA output features of its own in every layer, those that matter "
            "to it most. Off: both have all of them.",
        ),
        io.Boolean.Input(
            "block_separation",
            default=True,
            tooltip="Give the content all features of the blocks that draw it (output_blocks.0.1 "
            "and 2.1), the style all of its own (1.1, 3.1, 4.1 and 5.1). Only with columns.",
        ),
        io.Int.Input(
            "sample_times",
            default=3,
            min=1,
            max=1000,
            tooltip="How often features are chosen, evenly over the steps.",
        ),
        io.Float.Input(
            "column_ratio",
            default=0.1,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="What share of the features each LoRA gets each time: 0.1 three times is 30 %.",
        ),
    ]


def _validation_inputs() -> list[Any]:
    return [
        io.Boolean.Input(
            "images_per_validation",
            default=False,
            tooltip="Draw both together, content alone and style alone while it learns, as a "
            "strip under the curve. Each time takes as long as three pictures.",
        ),
        io.Boolean.Input(
            "saves_per_validation",
            default=False,
            tooltip="Save both LoRAs under output/loras as often as that.",
        ),
        io.Int.Input(
            "validation_steps",
            default=50,
            min=1,
            max=100000,
            tooltip="Steps from one to the next; only with one of the two above.",
        ),
    ]


def _last_inputs() -> list[Any]:
    """Optional ones."""
    return [
        io.Image.Input(
            "class_images",
            optional=True,
            tooltip="Other pictures of what the subject is (cats), with a class prompt: the model "
            "rehearses them, so that not every cat becomes yours.",
        ),
        OptionsType.Input("options", optional=True, tooltip="From Training Options."),
        io.String.Input(
            "class_prompt",
            default="",
            optional=True,
            advanced=True,
            tooltip="What the class images show, e.g. 'a photo of a cat'.",
        ),
        io.Float.Input(
            "prior_weight",
            default=1.0,
            min=0.0,
            max=100.0,
            step=0.05,
            optional=True,
            advanced=True,
            tooltip="How much the class images count.",
        ),
        io.Combo.Input(
            "mergers",
            options=list(MERGERS),
            default="learned",
            optional=True,
            advanced=True,
            tooltip="Features that both LoRAs have: learned weighs them against each other, as "
            "published; with disjoint the owner of a block has them alone.",
        ),
        io.Int.Input(
            "importance_samples",
            default=4,
            min=1,
            max=64,
            optional=True,
            advanced=True,
            tooltip="How many noisy pictures features are chosen by each time. The public "
            "implementation takes 1.",
        ),
        io.Combo.Input(
            "layers",
            options=list(LAYER_CHOICES),
            default="attention",
            optional=True,
            advanced=True,
            tooltip="What is trained. attention is the authors' choice (560 layers on SDXL).",
        ),
    ]


class UnZipLoRATrain(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UnZipLoRATrain",
            display_name="UnZipLoRA Train (one picture into two LoRAs)",
            category="ZipLoRA/unzip",
            description="Takes one picture apart into a LoRA of its subject and a LoRA of its "
            "style, which go together and with others (UnZipLoRA, Liu et al. 2025).",
            search_aliases=["ziplora", "unziplora", "separate style", "train lora", "b-lora"],
            is_input_list=True,
            inputs=[
                io.Model.Input(
                    "model", tooltip="An SDXL checkpoint. LoRAs on it count as part of it."
                ),
                io.Clip.Input("clip", tooltip="The checkpoint's CLIP."),
                io.Vae.Input("vae", tooltip="The checkpoint's VAE."),
                io.Image.Input(
                    "image",
                    tooltip="The picture. Several of the same subject in the same style also go.",
                ),
                *_prompt_inputs(),
                io.Int.Input(
                    "rank", default=64, min=1, max=4096, tooltip="Of each LoRA; 64 is the paper's."
                ),
                io.Int.Input(
                    "steps", default=600, min=1, max=100000, tooltip="600 is the paper's."
                ),
                learning_rate_input(5e-5, "5e-5 is the paper's.", "content_learning_rate"),
                learning_rate_input(5e-5, "5e-5 is the paper's.", "style_learning_rate"),
                learning_rate_input(5e-3, "Of the mergers, as published.", "weight_learning_rate"),
                io.Float.Input(
                    "similarity_weight",
                    default=0.5,
                    min=0.0,
                    max=1000.0,
                    step=0.01,
                    tooltip="λ: how strongly the two are kept from using the same features.",
                ),
                *_separation_inputs(),
                *_validation_inputs(),
                io.Int.Input(
                    "resolution",
                    default=1024,
                    min=64,
                    max=4096,
                    step=8,
                    tooltip="Side of a square training picture in pixels; others keep their shape "
                    "and about this area. 1024 is SDXL's own; 768 takes half the memory.",
                ),
                seed_input("Of both LoRAs' start, noise and timesteps."),
                memory_input("takes class pictures in turn"),
                *_last_inputs(),
            ],
            outputs=[
                unzipped_output(),
                io.LoraModel.Output("content_lora", tooltip="The subject, for any LoRA loader."),
                io.LoraModel.Output("style_lora", tooltip="The style, for any LoRA loader."),
                loss_output(),
                report_output(),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def execute(
        cls, image: list[Any], class_images: list[Any] | None = None, **single: Any
    ) -> io.NodeOutput:
        values = one_of_each(single)
        studio = Studio(
            values.pop("model"), values.pop("clip"), values.pop("vae"), image,
            class_images=class_images,
        )  # fmt: skip
        settings = UnZipSettings(**values)
        with followed(cls, settings.steps) as watch:
            result = train_unzip(studio, settings, checkpoint_root(), watch)
            log_warnings("UnZipLoRATrain", result.report)
            return io.NodeOutput(
                result.merged,
                lora_model(result.content.modules, result.content.metadata),
                lora_model(result.style.modules, result.style.metadata),
                {"loss": [], **result.record.history},
                result.report,
                ui=ui.PreviewText(result.report),
            )


NODES = [UnZipLoRATrain]
