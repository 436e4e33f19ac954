"""The pack's own types, and what several nodes do alike."""

from __future__ import annotations

import folder_paths
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..ziplora_core.comfy_adapter.paths import lora_path
from ..ziplora_core.files.metadata import trigger_words
from ..ziplora_core.lora import LoRA

LoRAPairType = io.Custom("LORA_PAIR")
MergedLoRAType = io.Custom("MERGED_LORA")
OptionsType = io.Custom("TRAINING_OPTIONS")
SliderPairsType = io.Custom("SLIDER_PAIRS")


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


def file_fingerprint(name: str) -> object:
    """Change when a LoRA file does, so that a new version is not served from the cache."""
    if folder_paths.get_full_path("loras", name) is None:
        return None
    stat = lora_path(name).stat()
    return [stat.st_mtime_ns, stat.st_size]


def describe_lora(title: str, lora: LoRA, clip_connected: bool = True) -> list[str]:
    """Say in a report what was read: formats, ranks, parts, trigger words and notes."""
    ranks = sorted({f.rank for f in lora.modules.values()})
    unet, text = len(lora.unet()), len(lora.text_encoder())
    span = f"{ranks[0]}" if len(ranks) == 1 else f"{ranks[0]}…{ranks[-1]}"
    lines = [
        f"{title}: {lora.name} ({', '.join(lora.formats)}), rank {span}",
        f"  {unet} UNet modules, {text} text-encoder modules",
    ]
    if text and not clip_connected:
        lines.append("  no CLIP is connected: the prompts are encoded without its text encoder")
    if words := trigger_words(lora.metadata):
        lines.append(f"  trigger words: {', '.join(words)}")
    return lines + [f"  {note}" for note in lora.notes]
