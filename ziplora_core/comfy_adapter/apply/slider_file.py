"""The range recorded in a slider's file, read without its tensors."""

from __future__ import annotations

from typing import Any

from ...errors import ZipLoRAError
from ...files.safetensors_reader import read_header
from ...sliders.metadata import slider_use
from ..folders import lora_path


def slider_file(name: str) -> dict[str, Any]:
    """Read the range of scales a slider was trained for, and its start as a share of the sampling.

    Args:
        name: the file name as listed from ComfyUI's `loras` folders.

    Returns:
        `range` (two numbers) and `start_percent`; or `range` None with the reason in `why`.
    """
    unknown = {"range": None, "why": "The file does not say how far it was trained to be moved."}
    if not name.endswith(".safetensors"):
        return unknown
    try:
        with lora_path(name).open("rb") as file:
            use = slider_use(read_header(file, name).metadata)
    except (ZipLoRAError, OSError) as error:
        return {"range": None, "why": str(error)}
    if use is None:
        return unknown
    return {"range": [use.low, use.high], "start_percent": use.start_percent}
