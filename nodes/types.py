"""The pack's own types, and what several nodes do alike."""

from __future__ import annotations

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

LoRAPairType = io.Custom("LORA_PAIR")
MergedLoRAType = io.Custom("MERGED_LORA")
OptionsType = io.Custom("TRAINING_OPTIONS")


def no_clip(output: str) -> ExecutionBlocker:
    """What a CLIP output carries when no CLIP is connected: an error only where it is used."""
    return ExecutionBlocker(
        f"{output}: found no CLIP connected to the node it comes from, expected one. Connect the "
        "checkpoint's CLIP to that node's clip input."
    )


def bias_and_norm_input() -> io.Combo.Input:
    """What to do with the parts of a LoRA that are no factors."""
    return io.Combo.Input(
        "bias_and_norm",
        options=["refuse", "drop"],
        default="refuse",
        optional=True,
        advanced=True,
        tooltip="Some trainers also change biases and norms, which no factors can hold: refuse "
        "such a LoRA, or drop those parts and say how many.",
    )
