"""A node that keeps a graph waiting between a training and the node that saves its result."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths

HELD = "held"
"""Name of a file in the input folder; while it is there, the node waits."""


class Wait:
    """Passes on a file name prefix, after a training and once nothing holds it any more."""

    RETURN_TYPES = ("STRING",)
    FUNCTION = "wait"
    CATEGORY = "sandbox"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        return {
            "required": {
                "prefix": ("STRING", {"default": ""}),
                "report": ("STRING", {"forceInput": True}),
            }
        }

    def wait(self, prefix: str, report: str) -> tuple[str]:
        while Path(folder_paths.get_input_directory(), HELD).exists():
            comfy.model_management.throw_exception_if_processing_interrupted()
            time.sleep(0.02)
        return (prefix,)
