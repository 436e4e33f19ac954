"""What a slider's file says of itself, without reading its tensors."""

from __future__ import annotations

from typing import Any

from ..errors import ZipLoRAError
from ..files.header import read_header
from ..slider_report import slider_use
from .paths import lora_path


def slider_file(name: str) -> dict[str, Any]:
    """Say how far a slider was trained to be moved, and after which share of the sampling.

    Args:
        name: as ComfyUI's `loras` folders list it.

    Returns:
        `range` (two numbers) and `start_percent`; or `range` None, and `why`.
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
