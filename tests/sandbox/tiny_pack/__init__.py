"""A test-only node pack with which ComfyUI's stock loaders recognise the small models.

It also has a node that simulates a fast training, one that waits before a file is saved, and two
that make small vision and text encoders.
"""

from __future__ import annotations

from typing import Any

import comfy.supported_models

from .families import SandboxTextEncoder, TinyQwenImage, TinyZImage
from .mini import MiniSDXL
from .models import TinyRefiner, TinySDXL
from .pace import PacedTraining
from .vision import SandboxVision
from .wait import Wait

NODE_CLASS_MAPPINGS: dict[str, Any] = {
    "SandboxPacedTraining": PacedTraining,
    "SandboxTextEncoder": SandboxTextEncoder,
    "SandboxVision": SandboxVision,
    "SandboxWait": Wait,
}

comfy.supported_models.models[:0] = [TinySDXL, TinyRefiner, MiniSDXL, TinyZImage, TinyQwenImage]
