"""Inputs of the nodes that merge without learning, and of the one that applies a merge."""

from __future__ import annotations

from comfy_api.latest import io

from ..ziplora_core.blocks import PRESETS, Blocks, parse_blocks
from .training_inputs import seed_input, size_input


def block_inputs(method: str, default: str) -> list[io.Combo.Input | io.String.Input]:
    """The two inputs that weigh content and style by block."""
    return [
        io.Combo.Input(
            "block_preset",
            options=list(PRESETS),
            default=default,
            optional=True,
            advanced=True,
            tooltip=f"{method}which blocks of the UNet get which LoRA. b_lora: the subject in "
            "output_blocks.0.1 only, the style in output_blocks.1.1 only. b_lora_protected: so "
            "there, both everywhere else. content_deep_…: the subject only where the UNet sees "
            "the picture at its smallest, the style elsewhere or everywhere.",
        ),
        io.String.Input(
            "blocks",
            default="",
            multiline=True,
            optional=True,
            advanced=True,
            tooltip=f"{method}your own weights in place of the preset: a line per block, with "
            "content and style weight, as “output_blocks.0.1 1 0”; “*” is all the rest, which "
            "counts in full where it is not named.",
        ),
    ]


def chosen_blocks(preset: str, text: str) -> Blocks:
    """A person's own weights by block, else the preset's; always with the rest, "", in it."""
    return {"": (1.0, 1.0), **(parse_blocks(text) if text.strip() else PRESETS[preset])}


def calibration_inputs() -> list[io.Input]:
    """What a merge that looks at the layers' inputs needs: prompts, and how to draw them."""
    used = "Only used with prompts connected."
    return [
        io.Conditioning.Input(
            "content_conditioning",
            optional=True,
            tooltip="For rank_space, and for any method with a rank: the subject LoRA's own "
            "prompt, encoded with content_clip.",
        ),
        io.Conditioning.Input(
            "style_conditioning",
            optional=True,
            tooltip="For rank_space, and for any method with a rank: the style LoRA's own prompt, "
            "encoded with style_clip.",
        ),
        io.Conditioning.Input(
            "joint_conditioning",
            optional=True,
            tooltip="A prompt of both together, e.g. 'a photo of sks dog in watercolour style'. "
            "Recommended for rank_space: it holds the merge to what both LoRAs add there.",
        ),
        seed_input(f"Of the pictures the LoRAs draw. {used}", optional=True),
        *(
            size_input(side, f"The {side} in pixels of these pictures. {used}", optional=True,
                       advanced=True)
            for side in ("width", "height")
        ),
    ]  # fmt: skip


def weight_input(concept: str) -> io.Float.Input:
    return io.Float.Input(
        f"{concept}_weight",
        default=1.0,
        min=-10.0,
        max=10.0,
        step=0.05,
        tooltip=f"How much of the {concept} LoRA goes into the merge.",
    )
