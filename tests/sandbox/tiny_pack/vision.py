"""Two vision encoders of ComfyUI's own classes, with configs small enough for a CPU.

The stock loader knows only the published sizes; the smallest has 300 million parameters.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from comfy.clip_vision import ClipVisionModel

CONFIGS = {name: Path(__file__).with_name(f"{name}.json") for name in ("clip_vision", "dinov2")}


def tiny_vision(kind: str, **other: Any) -> ClipVisionModel:
    """Build a CLIP_VISION with random weights from `clip_vision.json` or `dinov2.json`.

    Args:
        kind: `clip_vision` or `dinov2`.
        other: config values to change.
    """
    encoder = ClipVisionModel({**json.loads(CONFIGS[kind].read_text()), **other})
    generator = torch.Generator().manual_seed(0)
    for parameter in encoder.model.parameters():
        values = torch.randn(parameter.shape, generator=generator) * 0.2
        parameter.data.copy_(values + (parameter.ndim == 1))
    return encoder


class SandboxVision:
    """Replaces Load CLIP Vision in a workflow."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        kinds = (list(CONFIGS), {})
        return {"required": {"kind": kinds, "width": ("INT", {"default": 32, "min": 1})}}

    RETURN_TYPES = ("CLIP_VISION",)
    FUNCTION = "load"
    CATEGORY = "sandbox"

    def load(self, kind: str, width: int) -> tuple[ClipVisionModel]:
        return (tiny_vision(kind, **({"projection_dim": width} if kind == "clip_vision" else {})),)
