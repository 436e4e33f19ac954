"""The inputs of UnZipLoRA Train, in groups."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...ziplora_core.lora.layers import LAYER_CHOICES
from ...ziplora_core.unziplora.options import MERGERS
from ..shared.training_inputs import prior_weight_input
from ..shared.types import OptionsType


def _prompt_input(name: str, example: str, tooltip: str) -> io.String.Input:
    return io.String.Input(name, multiline=True, placeholder=example, tooltip=tooltip)


def prompt_inputs() -> list[Any]:
    """The three prompts of the image."""
    return [
        _prompt_input(
            "prompt",
            "a monadikos cat in sketch style",
            "A prompt that describes the image: a rare word that stands for your subject "
            "(monadikos), its class (cat), and the style in two or three plain words.",
        ),
        _prompt_input(
            "content_prompt",
            "a monadikos cat",
            "The same prompt without the style words. The content LoRA reads only this.",
        ),
        _prompt_input(
            "style_prompt",
            "a cat in sketch style",
            "The same prompt without the rare word. The style LoRA reads only this.",
        ),
    ]


def separation_inputs() -> list[Any]:
    """The choice of each LoRA's output features."""
    return [
        io.Boolean.Input(
            "column_separation",
            default=True,
            advanced=True,
            tooltip="Give each LoRA its own output features in every layer: those that matter most "
            "to it. Off: both LoRAs use all features.",
        ),
        io.Boolean.Input(
            "block_separation",
            default=True,
            advanced=True,
            tooltip="Give the content LoRA all features of output_blocks.0.1 and 2.1, and the "
            "style LoRA all features of 1.1, 3.1, 4.1 and 5.1. Needs column_separation.",
        ),
        io.Int.Input(
            "sample_times",
            default=3,
            min=1,
            max=1000,
            advanced=True,
            tooltip="Number of times features are chosen, spread evenly over the steps.",
        ),
        io.Float.Input(
            "column_ratio",
            default=0.1,
            min=0.0,
            max=1.0,
            step=0.01,
            advanced=True,
            tooltip="Share of the features that each LoRA gets each time: 0.1 three times is 30 %.",
        ),
    ]


def validation_inputs() -> list[Any]:
    """Images and files made during the training."""
    return [
        io.Boolean.Input(
            "images_per_validation",
            default=False,
            advanced=True,
            tooltip="Draw three validation images during training, shown below the loss curve: "
            "both LoRAs together, content alone, style alone. Each time takes as long as three "
            "images.",
        ),
        io.Boolean.Input(
            "saves_per_validation",
            default=False,
            advanced=True,
            tooltip="Save both LoRAs under output/loras every validation_steps.",
        ),
        io.Int.Input(
            "validation_steps",
            default=50,
            min=1,
            max=100000,
            advanced=True,
            tooltip="Steps between validations. Only used with images_per_validation or "
            "saves_per_validation.",
        ),
    ]


def optional_inputs() -> list[Any]:
    """The optional inputs."""
    return [
        io.Image.Input(
            "class_images",
            optional=True,
            tooltip="Images of other members of the subject's class (cats), used with class_prompt "
            "for prior preservation: the model also trains on them, so that not every cat becomes "
            "yours.",
        ),
        OptionsType.Input("options", optional=True, tooltip="From Training Options."),
        io.String.Input(
            "class_prompt",
            default="",
            optional=True,
            advanced=True,
            tooltip="The prompt of the class images, e.g. 'a photo of a cat'.",
        ),
        prior_weight_input(
            "Weight of the class images in the loss. Only used with class images.",
            optional=True,
            advanced=True,
        ),
        io.Combo.Input(
            "mergers",
            options=list(MERGERS),
            default="learned",
            optional=True,
            advanced=True,
            tooltip="The treatment of features that both LoRAs would use. learned weighs them "
            "against each other, as published; disjoint gives them only to the LoRA that owns the "
            "block.",
        ),
        io.Int.Input(
            "importance_samples",
            default=4,
            min=1,
            max=64,
            optional=True,
            advanced=True,
            tooltip="Number of noisy images by which features are chosen each time. The public "
            "implementation uses 1.",
        ),
        io.Combo.Input(
            "layers",
            options=list(LAYER_CHOICES),
            default="attention",
            optional=True,
            advanced=True,
            tooltip="The layers to train. attention is the authors' choice (560 layers on SDXL).",
        ),
        io.Float.Input(
            "alone_share",
            default=0.5,
            min=0.0,
            max=1.0,
            step=0.05,
            optional=True,
            advanced=True,
            tooltip="Share of the samples that one LoRA learns without the other, at its own "
            "prompt: half of them content, half style. Then each LoRA draws its half when used "
            "alone, too. 0 is as published: both learn every sample together.",
        ),
    ]
