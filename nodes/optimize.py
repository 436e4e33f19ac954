"""ZipLoRA itself."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ..ziplora_core.comfy_adapter.paths import checkpoint_root
from ..ziplora_core.comfy_adapter.zip_inputs import Prompt
from ..ziplora_core.comfy_adapter.zip_session import optimise
from ..ziplora_core.files.writer import lora_model
from ..ziplora_core.keeping import attempt, composed
from ..ziplora_core.layers import LAYER_CHOICES
from ..ziplora_core.merge import MergedLoRA
from ..ziplora_core.merge_map import merge_map
from ..ziplora_core.objective import SIMILARITIES
from ..ziplora_core.options import SOLVERS, TrainingOptions, ZipSettings
from ..ziplora_core.pairing import LoRAPair
from .outputs import lora_output, loss_output, merged_output, report_output
from .progress import followed, log_warnings
from .training_inputs import learning_rate_input, memory_input, seed_input, size_input
from .types import OptionsType, pair_input

_NO_LATENT = "in pixels of the pictures each LoRA draws for itself. Only used without a latent."


class ZipLoRAOptimize(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZipLoRAOptimize",
            display_name="ZipLoRA Optimize",
            category="ZipLoRA/merge",
            description="Learns, per input column of every layer, how much of the content LoRA and "
            "of the style LoRA to keep, so that the merge still draws the subject, still draws the "
            "style, and draws both together (Shah et al. 2023).",
            search_aliases=["ziplora", "merge loras", "subject in style", "combine subject style"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The checkpoint both LoRAs belong to. LoRAs on it count as part of it.",
                ),
                pair_input(),
                io.Conditioning.Input(
                    "content_conditioning",
                    tooltip="The subject LoRA's own prompt, e.g. 'a photo of sks dog', encoded "
                    "with content_clip.",
                ),
                io.Conditioning.Input(
                    "style_conditioning",
                    tooltip="The style LoRA's own prompt, e.g. 'a cat in watercolour style', "
                    "encoded with style_clip.",
                ),
                io.Latent.Input(
                    "content_latent",
                    optional=True,
                    tooltip="VAE-encoded pictures of the subject. Without them the content LoRA "
                    "draws its own.",
                ),
                io.Latent.Input(
                    "style_latent",
                    optional=True,
                    tooltip="VAE-encoded pictures of the style. Without them the style LoRA draws "
                    "its own.",
                ),
                io.Combo.Input(
                    "solver",
                    options=list(SOLVERS),
                    default="closed_form",
                    tooltip="closed_form: solves for the coefficients layer by layer, without "
                    "steps, without a backward pass and without the penalty; connect "
                    "joint_conditioning to it. adam: gradient steps, as in the paper. "
                    "closed_form_then_adam: the steps start from the closed form.",
                ),
                io.Int.Input(
                    "steps",
                    default=100,
                    min=1,
                    max=100000,
                    tooltip="Optimisation steps; the paper uses at most 100. The closed form alone "
                    "has none.",
                ),
                learning_rate_input(0.01, "The paper's is 0.01. At 5e-5 nothing moves."),
                io.Combo.Input(
                    "similarity",
                    options=list(SIMILARITIES),
                    default="cosine",
                    tooltip="What makes the two LoRAs' columns avoid each other. cosine is free of "
                    "scale; dot_mean and dot_sum also reward shrinking both; column_cosine weighs "
                    "each column by how alike the LoRAs are there.",
                ),
                io.Float.Input(
                    "similarity_weight",
                    default=0.01,
                    min=0.0,
                    max=100.0,
                    step=1e-7,
                    round=False,
                    tooltip="λ of the penalty; 0 leaves it out.",
                ),
                io.Combo.Input(
                    "layers",
                    options=list(LAYER_CHOICES),
                    default="attention",
                    tooltip="Which modules get coefficients; the rest stays as in the direct "
                    "merge. attention is the paper's choice (560 layers on SDXL).",
                ),
                size_input("width", f"The width {_NO_LATENT}"),
                size_input("height", f"The height {_NO_LATENT}"),
                seed_input("Of noise, timesteps and their order."),
                memory_input("takes content and style in turn"),
                OptionsType.Input("options", optional=True, tooltip="From Training Options."),
                io.Int.Input(
                    "passes",
                    default=2,
                    min=1,
                    max=10,
                    optional=True,
                    advanced=True,
                    tooltip="Of the closed form: 1 looks at the single LoRAs only; every further "
                    "pass also makes good what the merge of the one before got wrong.",
                ),
                io.Int.Input(
                    "calibration_states",
                    default=25,
                    min=1,
                    max=1000,
                    optional=True,
                    advanced=True,
                    tooltip="Noisy pictures per prompt that the closed form looks at.",
                ),
                io.Conditioning.Input(
                    "joint_conditioning",
                    optional=True,
                    tooltip="A prompt that asks for the subject in the style, encoded with any "
                    "CLIP, or with one that has both LoRAs on it. Not in the paper: where both "
                    "LoRAs see the same, matching each on its own ends in half of both; this holds "
                    "both at full strength there.",
                ),
            ],
            outputs=[
                merged_output(),
                lora_output(),
                loss_output(),
                report_output(),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
        )

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
        settings = ZipSettings(**widgets, options=options or TrainingOptions())
        prompts = [
            Prompt("content", content_conditioning, content_latent),
            Prompt("style", style_conditioning, style_latent),
        ]
        if joint_conditioning is not None:
            prompts.append(Prompt("joint", joint_conditioning))
        with followed(cls, settings.gradient_steps) as watch:
            result = optimise(model, pair, prompts, settings, checkpoint_root(), watch)
            notes: list[str] = []
            drawn = attempt("drawing the map of the merge", lambda: _map(result.merged), notes, {})
            report = composed(lambda: result.report, notes)
            log_warnings("ZipLoRAOptimize", report)
            return io.NodeOutput(
                result.merged,
                lora_model(result.merged.modules(), result.merged.metadata),
                {**result.record.history, "loss": result.loss},
                report,
                ui=ui.PreviewText(report).as_dict() | drawn,
            )


def _map(merged: MergedLoRA) -> dict[str, list[Any]]:
    """What js/merge_map.js draws."""
    drawn = merge_map(merged)
    return {} if drawn is None else {"ziplora_merge_map": [drawn]}


NODES = [ZipLoRAOptimize]
