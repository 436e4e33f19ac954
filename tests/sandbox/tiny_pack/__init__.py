"""A test-only node pack with which ComfyUI's stock loaders recognise the small SDXLs.

It also has a node that simulates a fast training, one that waits before a file is saved, and one
that makes small vision encoders.
"""

from __future__ import annotations

from typing import Any

import comfy.supported_models

from .mini import MiniSDXL
from .models import TinyRefiner, TinySDXL
from .pace import PacedTraining
from .vision import SandboxVision
from .wait import Wait

NODE_CLASS_MAPPINGS: dict[str, Any] = {
    "SandboxPacedTraining": PacedTraining,
    "SandboxVision": SandboxVision,
    "SandboxWait": Wait,
}

comfy.supported_models.models[:0] = [TinySDXL, TinyRefiner, MiniSDXL]
