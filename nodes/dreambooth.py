"""The DreamBooth trainer node."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ..ziplora_core.comfy_adapter.data.caption_encoding import refuse_no_prompt
from ..ziplora_core.comfy_adapter.folders import work_root
from ..ziplora_core.comfy_adapter.train.dreambooth import train_dreambooth
from ..ziplora_core.comfy_adapter.train.dreambooth_inputs import TrainingInputs
from ..ziplora_core.dreambooth.options import DreamBoothSettings
from ..ziplora_core.files.writer import lora_model
from ..ziplora_core.lora.layers import LAYER_CHOICES
from .shared.before_run import UNLINKED, checked, unless_linked
from .shared.outputs import lora_output, loss_output, report_output
from .shared.progress import followed, log_warnings
from .shared.queued import Trainer
from .shared.training_inputs import (
    SQUARE_IMAGE,
    alpha_input,
    checkpoint_inputs,
    learning_rate_input,
    memory_input,
    prior_weight_input,
    rank_input,
    resolution_input,
    seed_input,
    steps_input,
    unwrap_single,
)
from .shared.types import OptionsType


class TrainDreamBoothLoRA(Trainer):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TrainDreamBoothLoRA",
            display_name="Train DreamBooth LoRA",
            category="ZipLoRA/train",
            description="Trains a LoRA of your subject from four or five images, or of a style "
            "from one image. The defaults are those of the ZipLoRA paper, so the LoRAs suit "
            "merging.",
            search_aliases=["ziplora", "train lora", "dreambooth", "lora trainer", "fine-tune"],
            is_input_list=True,
            inputs=[
                *checkpoint_inputs(),
                io.Image.Input(
                    "images",
                    tooltip="Four or five images of a subject, or one image of a style: a batch, "
                    "or a list of images of different sizes.",
                ),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    default="a photo of sks dog",
                    tooltip="A prompt that describes the images: a rare word that stands for your "
                    "subject (sks) and its class (dog). For a style: the content of the image and "
                    "the style, e.g. 'a cat in watercolor style'.",
                ),
                io.String.Input(
                    "captions",
                    optional=True,
                    force_input=True,
                    tooltip="One caption per image, as a list or one per line. An empty caption "
                    "stands for the prompt. Captions are learned as they are written, see "
                    "literal_captions.",
                ),
                io.Image.Input(
                    "class_images",
                    optional=True,
                    tooltip="Images of other members of the subject's class (dogs). Without them, "
                    "the model generates class images itself, if there is a class prompt.",
                ),
                io.String.Input(
                    "class_prompt",
                    advanced=True,
                    default="",
                    tooltip="A prompt for the subject's class, e.g. 'a photo of a dog'. Turns on "
                    "prior preservation: the model also trains on class images, so that not every "
                    "dog becomes yours. Empty: not used, as in the ZipLoRA paper.",
                ),
                prior_weight_input(
                    "Weight of the class images in the loss. Only used with a class prompt.",
                    advanced=True,
                ),
                io.Combo.Input(
                    "layers",
                    advanced=True,
                    options=list(LAYER_CHOICES),
                    default="attention",
                    tooltip="The layers to train. attention is the paper's choice (560 layers on "
                    "SDXL), and the layers that ZipLoRA merges; attention_ff adds the feed-forward "
                    "layers; extended and all also train convolutions (LoCon).",
                ),
                rank_input(
                    64,
                    "The capacity of the LoRA and the size of its file. The paper uses 64 on SDXL; "
                    "ai-toolkit's examples 16 on FLUX.1, Chroma and Qwen-Image; musubi-tuner's 32 "
                    "on Krea 2.",
                ),
                alpha_input(
                    64.0, "The LoRA is multiplied by alpha / rank. Keep alpha equal to rank."
                ),
                steps_input(
                    1000,
                    "The paper uses 1000, for a subject and for a style; ai-toolkit's examples "
                    "2000 on FLUX.1, Chroma and Qwen-Image.",
                ),
                learning_rate_input(
                    5e-5,
                    "The paper uses 5e-5 on SDXL. 1e-4 learns faster, and is what ai-toolkit and "
                    "musubi-tuner use on FLUX.1, Qwen-Image and Krea 2.",
                ),
                io.Boolean.Input(
                    "train_text_encoder",
                    advanced=True,
                    default=False,
                    tooltip="Also train both text encoders. This learns the rare word better and "
                    "takes more memory and time. The paper does not do it.",
                ),
                resolution_input(1024, SQUARE_IMAGE),
                seed_input(
                    "Seed of the initial values, the noise, the timesteps and the order of images."
                ),
                memory_input("processes class images in turn"),
                OptionsType.Input("options", optional=True, tooltip="From Training Options."),
                learning_rate_input(
                    5e-6,
                    "Learning rate of the text encoders. Only used with train_text_encoder.",
                    name="text_encoder_learning_rate",
                    optional=True,
                    advanced=True,
                ),
                io.Boolean.Input(
                    "mirror",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Also train on mirrored images. Do not use it for faces, lettering or "
                    "anything else that has a left and a right.",
                ),
                io.Int.Input(
                    "class_count",
                    default=50,
                    min=1,
                    max=1000,
                    optional=True,
                    advanced=True,
                    tooltip="Number of class images to generate if none are connected. They are "
                    "kept and reused.",
                ),
                io.Boolean.Input(
                    "literal_captions",
                    default=True,
                    optional=True,
                    advanced=True,
                    tooltip="Learn captions as they are written: 'miku (vocaloid)' is a name in "
                    "brackets. Off: captions are prompts in ComfyUI's syntax, with (emphasis:1.2) "
                    "and embedding:name. The prompts typed on nodes always are.",
                ),
            ],
            outputs=[
                lora_output(),
                loss_output(),
                report_output(),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo, io.Hidden.prompt],
        )

    @classmethod
    def validate_inputs(cls, prompt: list[str | None], captions: object = UNLINKED) -> bool | str:
        if captions is not UNLINKED:
            return True
        return checked(unless_linked(refuse_no_prompt, prompt[0]))

    @classmethod
    def execute(
        cls,
        images: list[Any],
        captions: list[str] | None = None,
        class_images: list[Any] | None = None,
        **single: Any,
    ) -> io.NodeOutput:
        values = unwrap_single(single)
        inputs = TrainingInputs(
            values.pop("model"), values.pop("clip"), values.pop("vae"),
            images, captions or (), class_images,
        )  # fmt: skip
        settings = DreamBoothSettings(**values)
        with followed(cls, settings.steps) as callbacks:
            result = train_dreambooth(inputs, settings, work_root(), callbacks)
            log_warnings("TrainDreamBoothLoRA", result.report)
            return io.NodeOutput(
                lora_model(result.modules, result.metadata, result.record.origin),
                {"loss": [], **result.record.history},
                result.report,
                ui=ui.PreviewText(result.report),
            )


NODES = [TrainDreamBoothLoRA]
