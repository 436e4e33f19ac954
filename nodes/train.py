"""LoRAs from pictures."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ..ziplora_core.comfy_adapter.dreambooth_inputs import Studio
from ..ziplora_core.comfy_adapter.dreambooth_session import train_dreambooth
from ..ziplora_core.comfy_adapter.paths import work_root
from ..ziplora_core.files.writer import lora_model
from ..ziplora_core.layers import LAYER_CHOICES
from ..ziplora_core.options import DreamBoothSettings
from .outputs import lora_output, loss_output, report_output
from .progress import followed, log_warnings
from .training_inputs import learning_rate_input, memory_input, one_of_each, seed_input
from .types import OptionsType


class TrainDreamBoothLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TrainDreamBoothLoRA",
            display_name="Train DreamBooth LoRA",
            category="ZipLoRA/train",
            description="Trains a LoRA of your subject from a few pictures, or of a style from "
            "one. The defaults are those of the ZipLoRA paper: LoRAs made with them merge well.",
            search_aliases=["ziplora", "train lora", "dreambooth", "lora trainer", "fine-tune"],
            is_input_list=True,
            inputs=[
                io.Model.Input(
                    "model", tooltip="An SDXL checkpoint. LoRAs on it count as part of it."
                ),
                io.Clip.Input("clip", tooltip="The checkpoint's CLIP."),
                io.Vae.Input("vae", tooltip="The checkpoint's VAE."),
                io.Image.Input(
                    "images",
                    tooltip="Four or five pictures of a subject, or one of a style; a batch, or a "
                    "list of different sizes.",
                ),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    default="a photo of sks dog",
                    tooltip="What the pictures show: a rare word that will stand for your subject "
                    "(sks) and what it is (dog). For a style: 'a cat in sks style'.",
                ),
                io.String.Input(
                    "captions",
                    optional=True,
                    force_input=True,
                    tooltip="A text for each picture, as a list or line by line; an empty one "
                    "stands for the prompt.",
                ),
                io.Image.Input(
                    "class_images",
                    optional=True,
                    tooltip="Other pictures of what the subject is (dogs). Without them the model "
                    "draws its own, if there is a class prompt.",
                ),
                io.String.Input(
                    "class_prompt",
                    default="",
                    tooltip="What the subject is one of, e.g. 'a photo of a dog': the model then "
                    "also rehearses it, so that not every dog becomes yours. Empty: not used; the "
                    "ZipLoRA paper does without.",
                ),
                io.Float.Input(
                    "prior_weight",
                    default=1.0,
                    min=0.0,
                    max=100.0,
                    step=0.05,
                    tooltip="How much the class pictures count; only with a class prompt.",
                ),
                io.Combo.Input(
                    "layers",
                    options=list(LAYER_CHOICES),
                    default="attention",
                    tooltip="What is trained. attention is the paper's choice (560 layers on SDXL) "
                    "and what ZipLoRA merges; attention_ff adds the feed-forwards; extended and "
                    "all also train convolutions (LoCon).",
                ),
                io.Int.Input(
                    "rank",
                    default=64,
                    min=1,
                    max=4096,
                    tooltip="Room for what is learned, and size of the file. 64 is the paper's.",
                ),
                io.Float.Input(
                    "alpha",
                    default=64.0,
                    min=0.01,
                    max=4096.0,
                    step=0.01,
                    tooltip="The LoRA counts alpha / rank times; equal to the rank: once.",
                ),
                io.Int.Input(
                    "steps",
                    default=1000,
                    min=1,
                    max=100000,
                    tooltip="1000 is the paper's, for a subject and for a style.",
                ),
                learning_rate_input(5e-5, "5e-5 is the paper's; 1e-4 learns faster."),
                io.Boolean.Input(
                    "train_text_encoder",
                    default=False,
                    tooltip="Also train both text encoders. The paper does not; it costs memory "
                    "and time, and learns the rare word better.",
                ),
                io.Int.Input(
                    "resolution",
                    default=1024,
                    min=64,
                    max=4096,
                    step=8,
                    tooltip="Side of a square training picture in pixels; others keep their shape "
                    "and about this area. 1024 is SDXL's own; 768 takes half the memory.",
                ),
                seed_input("Of the LoRA's start, noise, timesteps and the order of pictures."),
                memory_input("takes class pictures in turn"),
                OptionsType.Input("options", optional=True, tooltip="From Training Options."),
                learning_rate_input(
                    5e-6,
                    "Of the text encoders, when they are trained.",
                    name="text_encoder_learning_rate",
                    optional=True,
                    advanced=True,
                ),
                io.Boolean.Input(
                    "mirror",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Show the pictures mirrored, too. Not for faces, lettering or anything "
                    "else with a left and a right.",
                ),
                io.Int.Input(
                    "class_count",
                    default=50,
                    min=1,
                    max=1000,
                    optional=True,
                    advanced=True,
                    tooltip="How many class pictures the model draws where none are connected. "
                    "They are kept for the next time.",
                ),
            ],
            outputs=[
                lora_output(),
                loss_output(),
                report_output(),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def execute(
        cls,
        images: list[Any],
        captions: list[str] | None = None,
        class_images: list[Any] | None = None,
        **single: Any,
    ) -> io.NodeOutput:
        values = one_of_each(single)
        studio = Studio(
            values.pop("model"), values.pop("clip"), values.pop("vae"),
            images, captions or (), class_images,
        )  # fmt: skip
        settings = DreamBoothSettings(**values)
        with followed(cls, settings.steps) as watch:
            result = train_dreambooth(studio, settings, work_root(), watch)
            log_warnings("TrainDreamBoothLoRA", result.report)
            return io.NodeOutput(
                lora_model(result.modules, result.metadata),
                {"loss": [], **result.record.history},
                result.report,
                ui=ui.PreviewText(result.report),
            )


NODES = [TrainDreamBoothLoRA]
