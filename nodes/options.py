"""How a training loop behaves."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..ziplora_core.options import OPTIMISERS, RESUME, SCHEDULES, TrainingOptions
from .types import OptionsType


class TrainingOptionsNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        default = TrainingOptions()
        return io.Schema(
            node_id="TrainingOptions",
            display_name="Training Options",
            category="ZipLoRA/train",
            description="How a training loop behaves. Every field has a good default; connect this "
            "node only to change one.",
            search_aliases=["ziplora", "optimizer", "scheduler", "checkpoint", "resume"],
            inputs=[
                io.Combo.Input(
                    "optimiser",
                    options=list(OPTIMISERS),
                    default=default.optimiser,
                    tooltip="auto: adam for merger coefficients, adamw for LoRAs. adamw_8bit saves "
                    "memory where the bitsandbytes package is installed.",
                ),
                io.Combo.Input(
                    "schedule",
                    options=list(SCHEDULES),
                    default=default.schedule,
                    tooltip="The learning rate over the run: constant, or falling to zero.",
                ),
                io.Int.Input(
                    "warm_up_steps",
                    default=default.warm_up_steps,
                    min=0,
                    max=100000,
                    tooltip="Steps over which the learning rate rises from zero.",
                ),
                io.Int.Input(
                    "batch",
                    default=default.batch,
                    min=1,
                    max=64,
                    tooltip="Draws per concept in one pass: more is steadier and needs more "
                    "memory.",
                ),
                io.Int.Input(
                    "accumulation",
                    default=default.accumulation,
                    min=1,
                    max=256,
                    tooltip="Passes whose gradients make one step: a larger batch in the memory of "
                    "a small one.",
                ),
                io.Float.Input(
                    "gradient_clip",
                    default=default.gradient_clip,
                    min=0.0,
                    max=1000.0,
                    step=0.01,
                    tooltip="The largest norm of the gradient; 0 for no clipping.",
                ),
                io.Float.Input(
                    "min_snr_gamma",
                    default=default.min_snr_gamma,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="Weighs down easy timesteps (Hang et al. 2023; 5 is usual), of class "
                    "pictures too; 0 weighs all alike.",
                ),
                io.Int.Input(
                    "checkpoint_every",
                    default=default.checkpoint_every,
                    min=0,
                    max=100000,
                    tooltip="Steps between checkpoints. Cancelling writes one anyway.",
                ),
                io.Boolean.Input(
                    "early_stop",
                    default=default.early_stop,
                    tooltip="Stop when the method's own rule says so, or when the losses have "
                    "stopped falling.",
                ),
                io.Int.Input(
                    "held_out_draws",
                    default=default.held_out_draws,
                    min=0,
                    max=1000,
                    tooltip="Draws per concept for the retention figures before and after; 0 "
                    "leaves them out.",
                ),
                io.Combo.Input(
                    "resume",
                    options=list(RESUME),
                    default=default.resume,
                    tooltip="auto goes on from a checkpoint of exactly these inputs; restart "
                    "ignores it.",
                ),
                io.Float.Input(
                    "caption_dropout",
                    default=default.caption_dropout,
                    optional=True,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How often a picture is shown without its caption: 0.05 to 0.1 makes "
                    "guidance work better after long trainings. Only for Train DreamBooth LoRA and "
                    "UnZipLoRA Train.",
                ),
                io.Int.Input(
                    "sample_every",
                    default=default.sample_every,
                    optional=True,
                    min=0,
                    max=100000,
                    tooltip="Steps between sample pictures on the node; 0 for none. Each takes "
                    "about as long as 20 steps. Train DreamBooth LoRA draws the sample prompts, "
                    "Train Concept Slider its effect in three pictures; UnZipLoRA Train has "
                    "validation_steps of its own.",
                ),
                io.String.Input(
                    "sample_prompts",
                    default=default.sample_prompts,
                    optional=True,
                    multiline=True,
                    tooltip="What the sample pictures show, one prompt a line. Empty: the training "
                    "prompt. Sliders show their effect on the first line; UnZipLoRA Train takes "
                    "three lines, in the order of its prompts.",
                ),
            ],
            outputs=[OptionsType.Output("options", tooltip="For any training node.")],
        )

    @classmethod
    def execute(cls, **widgets: Any) -> io.NodeOutput:
        return io.NodeOutput(TrainingOptions(**widgets))


NODES = [TrainingOptionsNode]
