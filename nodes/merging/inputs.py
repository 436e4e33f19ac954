"""Inputs of Merge LoRAs and Apply Merged LoRA."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...ziplora_core.lora.blocks import PRESETS, Blocks, parse_blocks
from ..shared.training_inputs import seed_input, size_input


def block_inputs(
    method: str, default: str, **others: Any
) -> list[io.Combo.Input | io.String.Input]:
    """The two inputs that weight content and style by block."""
    return [
        io.Combo.Input(
            "block_preset",
            options=list(PRESETS),
            default=default,
            optional=True,
            tooltip=f"{method}the blocks of the UNet in which each LoRA acts. b_lora: the subject "
            "in output_blocks.0.1 only, the style in output_blocks.1.1 only. b_lora_protected: the "
            "same in these two blocks, and both LoRAs in all others. content_deep_…: the subject "
            "only in the blocks where the UNet works at its lowest resolution; the style in the "
            "other blocks, or in all.",
            **others,
        ),
        io.String.Input(
            "blocks",
            default="",
            multiline=True,
            optional=True,
            tooltip=f"{method}your own weights, in place of the preset. Write one line per block "
            "with its content weight and its style weight, e.g. “output_blocks.0.1 1 0”. “*” "
            "stands for all blocks that are not listed; without a “*” line, they get full weight.",
            **others,
        ),
    ]


def chosen_blocks(preset: str, text: str) -> Blocks:
    """Return the user's own weights by block, else the preset's; always with a rest entry, ""."""
    return {"": (1.0, 1.0), **(parse_blocks(text) if text.strip() else PRESETS[preset])}


def calibration_inputs() -> list[io.Input]:
    """The prompts and image settings of merges that measure the layers' inputs."""
    used = "Only used with prompts connected."
    return [
        io.Conditioning.Input(
            "content_conditioning",
            optional=True,
            tooltip="For rank_space, and for a lower rank with any method: the subject LoRA's own "
            "prompt, encoded with content_clip. Connect both prompts or neither.",
        ),
        io.Conditioning.Input(
            "style_conditioning",
            optional=True,
            tooltip="For rank_space, and for a lower rank with any method: the style LoRA's own "
            "prompt, encoded with style_clip. Connect both prompts or neither.",
        ),
        io.Conditioning.Input(
            "joint_conditioning",
            optional=True,
            tooltip="A prompt with both subject and style, e.g. 'a photo of sks dog in watercolor "
            "style'. Recommended for rank_space: the merge is then also fitted to the joint effect "
            "of both LoRAs there.",
        ),
        seed_input(f"Seed of the calibration images that the LoRAs draw. {used}", optional=True),
        *(
            size_input(side, f"The {side} of these images in pixels. {used}", optional=True,
                       advanced=True)
            for side in ("width", "height")
        ),
    ]  # fmt: skip


def weight_input(concept: str) -> io.Float.Input:
    """The weight of one LoRA in the merge."""
    return io.Float.Input(
        f"{concept}_weight",
        default=1.0,
        min=-10.0,
        max=10.0,
        step=0.05,
        tooltip=f"Weight of the {concept} LoRA in the merge, multiplied by its strength in the "
        "pair.",
    )
