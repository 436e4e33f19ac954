"""The pack's own types, and what every node does alike."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..ziplora_core.errors import problem

LoRAPairType = io.Custom("LORA_PAIR")
MergedLoRAType = io.Custom("MERGED_LORA")
OptionsType = io.Custom("TRAINING_OPTIONS")

CALLER = [io.Hidden.prompt, io.Hidden.unique_id]
"""What `require_clip` needs to know: the queued graph and this node's place in it."""


def require_clip(hidden: Any, slots: dict[int, str], clip: Any | None) -> None:
    """Refuse to run without a CLIP where another node wants one.

    Args:
        hidden: the node's `cls.hidden`.
        slots: the output slots that carry a CLIP, and their names.
        clip: what is connected.

    Raises:
        ZipLoRAError: no CLIP is connected, and one of the outputs is in use.
    """
    if clip is not None or not hidden.prompt:
        return
    wanted = [
        name
        for node in hidden.prompt.values()
        for value in node["inputs"].values()
        for slot, name in slots.items()
        if value == [hidden.unique_id, slot]
    ]
    if wanted:
        raise problem(
            f"output {wanted[0]}",
            found="no CLIP connected to this node, but another node uses this output",
            expected="a CLIP",
            advice="Connect the checkpoint's CLIP to the clip input.",
        )
