"""The ZipLoRA Optimize node."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ..ziplora_core.comfy_adapter.folders import checkpoint_root
from ..ziplora_core.comfy_adapter.train.ziplora import train_ziplora
from ..ziplora_core.comfy_adapter.train.ziplora_inputs import (
    Prompt,
    check_joint_strengths,
    joint_prompts,
)
from ..ziplora_core.files.writer import lora_model
from ..ziplora_core.lora.layers import LAYER_CHOICES
from ..ziplora_core.lora.merged import MergedLoRA
from ..ziplora_core.lora.pair import LoRAPair
from ..ziplora_core.training.losses import SIMILARITIES
from ..ziplora_core.training.options import TrainingOptions
from ..ziplora_core.training.protection import attempt, composed
from ..ziplora_core.ziplora.closed_form import BY_PASS
from ..ziplora_core.ziplora.merge_map import merge_map
from ..ziplora_core.ziplora.options import SOLVERS, ZipLoRASettings
from .shared.before_run import checked, unless_linked
from .shared.outputs import lora_output, loss_output, merged_output, report_output
from .shared.progress import followed, log_warnings
from .shared.prompt_warnings import prompt_warnings
from .shared.queued import Queued, Trainer
from .shared.shown import used_with
from .shared.training_inputs import (
    learning_rate_input,
    memory_input,
    seed_input,
    size_input,
    steps_input,
)
from .shared.types import OptionsType, pair_input

_STEPPED = used_with("solver", "adam", "closed_form_then_adam")
_SOLVED = used_with("solver", "closed_form", "closed_form_then_adam")
_OWN = used_with("solver", "closed_form", "adam", "closed_form_then_adam")
_NO_LATENT = "of the images that each LoRA draws, in pixels. Not used for a concept with a latent."


class ZipLoRAOptimize(Trainer):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZipLoRAOptimize",
            display_name="ZipLoRA Optimize",
            category="ZipLoRA/merge",
            description="Learns how much of the content LoRA and of the style LoRA to keep, for "
            "every input column of every layer, so that the merge draws the subject, the style, "
            "and both together (Shah et al. 2023).",
            search_aliases=["ziplora", "merge loras", "subject in style", "combine subject style"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The checkpoint of both LoRAs. LoRAs already on it count as part of "
                    "it.",
                ),
                pair_input(),
                io.Conditioning.Input(
                    "content_conditioning",
                    tooltip="The subject LoRA's own prompt, e.g. 'a photo of sks dog', encoded "
                    "with content_clip.",
                ),
                io.Conditioning.Input(
                    "style_conditioning",
                    tooltip="The style LoRA's own prompt, e.g. 'a cat in watercolor style', "
                    "encoded with style_clip.",
                ),
                io.Latent.Input(
                    "content_latent",
                    optional=True,
                    tooltip="VAE-encoded images of the subject. Without them, the content LoRA "
                    "draws its own.",
                ),
                io.Latent.Input(
                    "style_latent",
                    optional=True,
                    tooltip="VAE-encoded images of the style. Without them, the style LoRA draws "
                    "its own.",
                ),
                io.Combo.Input(
                    "solver",
                    options=list(SOLVERS),
                    default="closed_form",
                    tooltip="closed_form: solves for the coefficients layer by layer, without "
                    "steps, backward pass or penalty; connect joint_conditioning when you use it. "
                    "adam: gradient steps. closed_form_then_adam: gradient steps that start from "
                    "the closed form. adam_as_published: the paper's settings in place of these "
                    "widgets (100 steps, learning rate 0.01, cosine, λ 0.01, attention layers), "
                    "without joint_conditioning.",
                ),
                steps_input(
                    100,
                    "Number of gradient steps; the paper uses at most 100. Not used by "
                    "closed_form.",
                    **_STEPPED,
                ),
                learning_rate_input(
                    0.01,
                    "The paper uses 0.01. At 5e-5 the coefficients do not move.",
                    **_STEPPED,
                ),
                io.Combo.Input(
                    "similarity",
                    options=list(SIMILARITIES),
                    default="cosine",
                    tooltip="The penalty that keeps the two LoRAs in different columns. cosine "
                    "does not depend on the size of the coefficients; dot_mean and dot_sum also "
                    "reward shrinking both; column_cosine weights each column by how alike the "
                    "LoRAs are there.",
                    **_STEPPED,
                ),
                io.Float.Input(
                    "similarity_weight",
                    default=0.001,
                    min=0.0,
                    max=100.0,
                    step=1e-7,
                    round=False,
                    tooltip="λ, the weight of the penalty; 0 turns it off. At 0.01, the paper's "
                    "value, the style is kept less.",
                    **_STEPPED,
                ),
                io.Combo.Input(
                    "layers",
                    options=list(LAYER_CHOICES),
                    default="attention",
                    advanced=True,
                    **_OWN,
                    tooltip="The modules that get coefficients; the rest stays as in the direct "
                    "merge. attention is the paper's choice (560 layers on SDXL).",
                ),
                size_input("width", f"The width {_NO_LATENT}"),
                size_input("height", f"The height {_NO_LATENT}"),
                seed_input("Seed of the noise, the timesteps and their order."),
                memory_input("processes content and style in turn"),
                OptionsType.Input("options", optional=True, tooltip="From Training Options."),
                io.Int.Input(
                    "passes",
                    default=2,
                    min=1,
                    max=10,
                    optional=True,
                    **_SOLVED,
                    tooltip="Number of passes of the closed form. 1 looks at the single LoRAs "
                    "only; every further pass also corrects the errors of the previous pass's "
                    "merge.",
                ),
                io.Int.Input(
                    "calibration_states",
                    default=25,
                    min=1,
                    max=1000,
                    optional=True,
                    **_SOLVED,
                    tooltip="Number of calibration samples of the closed form: noisy images per "
                    "prompt.",
                ),
                io.Conditioning.Input(
                    "joint_conditioning",
                    optional=True,
                    tooltip="A prompt that asks for the subject in the style, encoded with any "
                    "CLIP, or with one that has both LoRAs on it; several through Conditioning "
                    "(Combine). Not in the paper. Where both "
                    "LoRAs see the same inputs, matching each on its own prompt ends with half of "
                    "both; with this prompt, the merge is also matched to both together.",
                ),
                io.Float.Input(
                    "joint_content",
                    default=0.9,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    optional=True,
                    advanced=True,
                    **_OWN,
                    tooltip="Strength of the subject in what the merge is matched to at the joint "
                    "prompt. 0.9 and 0.7 suit negative_strength 0; for any LoRA loader, 1 and 1. "
                    "Find the Merge finds them for your pair.",
                ),
                io.Float.Input(
                    "joint_style",
                    default=0.7,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    optional=True,
                    advanced=True,
                    **_OWN,
                    tooltip="Strength of the style there.",
                ),
                io.Float.Input(
                    "joint_weight",
                    default=4.0,
                    min=0.0,
                    max=1000.0,
                    step=0.5,
                    optional=True,
                    advanced=True,
                    **_OWN,
                    tooltip="How much the error at the joint prompt counts, relative to each "
                    "LoRA's own prompt.",
                ),
                io.Float.Input(
                    "negative_strength",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    optional=True,
                    advanced=True,
                    **_OWN,
                    tooltip="The negative_strength of Apply Merged LoRA that you will generate "
                    "images with: the LoRAs draw the calibration images in the same way. 1 for any "
                    "other LoRA loader.",
                ),
                io.Float.Input(
                    "ridge",
                    default=0.03,
                    min=1e-6,
                    max=1000.0,
                    step=0.01,
                    round=False,
                    optional=True,
                    advanced=True,
                    **_SOLVED,
                    tooltip="How firmly the closed form holds the coefficients at 1, the direct "
                    "merge. More makes them smaller and keeps less of each LoRA alone.",
                ),
            ],
            outputs=[
                merged_output(),
                lora_output(),
                loss_output(),
                report_output(),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo, io.Hidden.prompt],
        )

    @classmethod
    def validate_inputs(
        cls, joint_content: float | None = None, joint_style: float | None = None
    ) -> bool | str:
        return checked(unless_linked(check_joint_strengths, joint_content, joint_style))

    @classmethod
    def execute(
        cls,
        model: Any,
        pair: LoRAPair,
        content_conditioning: Any,
        style_conditioning: Any,
        content_latent: Any | None = None,
        style_latent: Any | None = None,
        options: TrainingOptions | None = None,
        joint_conditioning: Any | None = None,
        **widgets: Any,
    ) -> io.NodeOutput:
        settings = ZipLoRASettings(**widgets, options=options or TrainingOptions()).resolved()
        prompts = [
            Prompt("content", content_conditioning, content_latent),
            Prompt("style", style_conditioning, style_latent),
        ]
        if not settings.as_published:
            prompts += joint_prompts(joint_conditioning)
        with followed(cls, settings.gradient_steps) as callbacks:
            result = train_ziplora(model, pair, prompts, settings, checkpoint_root(), callbacks)
            notes: list[str] = []
            compare = "comparing the prompts with the trigger words"
            notes += attempt(compare, lambda: prompt_warnings(pair, Queued.of(cls)), notes, [])
            drawn = attempt("drawing the map of the merge", lambda: _map(result.merged), notes, {})
            report = composed(lambda: result.report, notes)
            log_warnings("ZipLoRAOptimize", report)
            by_pass = {} if settings.gradient_steps else {BY_PASS: result.loss}
            return io.NodeOutput(
                result.merged,
                lora_model(result.merged.modules(), result.merged.metadata, result.merged.origin),
                {**result.record.history, "loss": result.loss, **by_pass},
                report,
                ui=ui.PreviewText(report).as_dict() | drawn,
            )


def _map(merged: MergedLoRA) -> dict[str, list[Any]]:
    """The data that js/merge_map.js draws."""
    drawn = merge_map(merged)
    return {} if drawn is None else {"ziplora_merge_map": [drawn]}


NODES = [ZipLoRAOptimize]
