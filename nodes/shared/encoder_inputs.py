"""The image encoders that compare pictures with reference images, as inputs."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io


def encoder_inputs(clip_vision: str, dino: str) -> list[Any]:
    """Make the inputs clip_vision, style_images, dino and subject_images.

    Args:
        clip_vision: what the CLIP vision model is for, which ends the tooltip's first sentence.
        dino: what the DINO model is for, likewise.
    """
    return [
        io.ClipVision.Input(
            "clip_vision",
            optional=True,
            tooltip=f"A CLIP vision model, from Load CLIP Vision, {clip_vision}",
        ),
        io.Image.Input(
            "style_images",
            optional=True,
            tooltip="Reference images in the style. Needs clip_vision.",
        ),
        io.ClipVision.Input(
            "dino",
            optional=True,
            tooltip=f"A DINOv2 or DINOv3 model, from Load CLIP Vision, {dino}",
        ),
        io.Image.Input(
            "subject_images",
            optional=True,
            tooltip="Reference images of the subject. Needs dino.",
        ),
    ]
