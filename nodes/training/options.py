"""The Training Options node."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...ziplora_core.training.options import (
    OPTIMISERS,
    PRESETS,
    RESUME,
    SCHEDULES,
    TrainingOptions,
)
from ..shared.types import OptionsType


class TrainingOptionsNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        default = TrainingOptions()
        return io.Schema(
            node_id="TrainingOptions",
            display_name="Training Options",
            category="ZipLoRA/train",
            description="Sets how the training nodes run. Every value has a good default: connect "
            "this node only to change one.",
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
                    tooltip="The course of the learning rate: constant, or falling to zero.",
                ),
                io.Int.Input(
                    "warm_up_steps",
                    default=default.warm_up_steps,
                    min=0,
                    max=100000,
                    tooltip="Number of steps over which the learning rate rises from zero.",
                ),
                io.Int.Input(
                    "batch",
                    default=default.batch,
                    min=1,
                    max=64,
                    tooltip="Samples per concept, or images, in one forward pass. A larger batch "
                    "is steadier and needs more memory.",
                ),
                io.Int.Input(
                    "accumulation",
                    default=default.accumulation,
                    min=1,
                    max=256,
                    tooltip="Number of passes whose gradients make one step. Has the effect of a "
                    "larger batch in the memory of a small one, and takes more time.",
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
                    tooltip="Lowers the weight of easy timesteps (Hang et al. 2023; 5 is usual), "
                    "also for class images. 0 weights all timesteps equally.",
                ),
                io.Int.Input(
                    "checkpoint_every",
                    default=default.checkpoint_every,
                    min=0,
                    max=100000,
                    tooltip="Steps between checkpoints. Cancelling always writes one.",
                ),
                io.Boolean.Input(
                    "early_stop",
                    default=default.early_stop,
                    tooltip="For ZipLoRA Optimize: stop when the paper's stopping rule applies, or "
                    "when the losses have stopped falling. LoRA training never stops early.",
                ),
                io.Int.Input(
                    "held_out_draws",
                    default=default.held_out_draws,
                    min=0,
                    max=1000,
                    tooltip="Samples per concept for the before-and-after (retention) figures in "
                    "the report. 0 leaves these out and saves some time; a slider then shows its "
                    "effect without measuring it.",
                ),
                io.Combo.Input(
                    "resume",
                    options=list(RESUME),
                    default=default.resume,
                    tooltip="auto continues from a checkpoint of the same inputs; settings that "
                    "only affect what is shown or measured may differ. restart ignores the "
                    "checkpoint.",
                ),
                io.Float.Input(
                    "caption_dropout",
                    default=default.caption_dropout,
                    optional=True,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How often an image is shown without its caption. 0.05 to 0.1 keeps "
                    "guidance working in long trainings. Only for Train DreamBooth LoRA and "
                    "UnZipLoRA Train.",
                ),
                io.Int.Input(
                    "sample_every",
                    default=default.sample_every,
                    optional=True,
                    min=0,
                    max=100000,
                    tooltip="Steps between sample images on the node; 0 for none. Each image takes "
                    "about as long as 20 steps. Train DreamBooth LoRA draws sample_prompts; the "
                    "slider trainers draw the slider's effect in three images; UnZipLoRA Train "
                    "uses its own validation_steps.",
                ),
                io.String.Input(
                    "sample_prompts",
                    default=default.sample_prompts,
                    optional=True,
                    multiline=True,
                    tooltip="The prompts of the sample images, one per line. Empty: the training "
                    "prompt. Slider trainers show the effect on the first line; UnZipLoRA Train "
                    "uses three lines, in the order of its prompts.",
                ),
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default="custom",
                    optional=True,
                    socketless=True,
                    extra_dict={"ziplora_presets": PRESETS},
                    tooltip="Fills in the values above. as published: the papers' settings, which "
                    "are the defaults. fast: no sample images, few measurements. low memory: the "
                    "same, one image at a time; set memory to low on the training node, too. "
                    "A program that queues workflows sets the values themselves.",
                ),
            ],
            outputs=[OptionsType.Output("options", tooltip="For any training node.")],
        )

    @classmethod
    def execute(cls, preset: str = "custom", **widgets: Any) -> io.NodeOutput:
        return io.NodeOutput(TrainingOptions(**widgets))


NODES = [TrainingOptionsNode]
