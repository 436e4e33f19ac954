"""The pack's own types, and inputs and helpers that several nodes share."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ...ziplora_core.files.metadata import trigger_words
from ...ziplora_core.lora.factors import LoRA
from ...ziplora_core.plots.style import THEMES, Pixels, Theme

LoRAPairType = io.Custom("LORA_PAIR")
MergedLoRAType = io.Custom("MERGED_LORA")
FoundMergesType = io.Custom("FOUND_MERGES")
OptionsType = io.Custom("TRAINING_OPTIONS")
SliderPairsType = io.Custom("SLIDER_PAIRS")

PAGE = "page"
"""The theme of the page."""


def no_clip(output: str) -> ExecutionBlocker:
    """Make the value of a CLIP output without a connected CLIP: an error only where it is used."""
    return ExecutionBlocker(
        f"{output}: found no CLIP connected to the node it comes from, expected one. Connect the "
        "checkpoint's CLIP to that node's clip input."
    )


def pair_input() -> Any:
    """The input for a content and a style LoRA."""
    return LoRAPairType.Input("pair", tooltip="Both LoRAs, from Load LoRA Pair.")


def merged_input() -> Any:
    """The input for a merge of two LoRAs."""
    return MergedLoRAType.Input(
        "merged", tooltip="From a merging or UnZipLoRA node, or Load Merged LoRA."
    )


def theme_input() -> io.Combo.Input:
    """The colours of a figure."""
    return io.Combo.Input(
        "theme",
        options=[PAGE, *THEMES],
        default=PAGE,
        optional=True,
        tooltip="Colours of the figure. page: those of the page; a program that queues workflows "
        "gets dark. light is also for print.",
    )


def theme_of(name: str) -> Theme:
    """Return the colours of a theme; the page itself puts a theme in the place of `page`."""
    return THEMES["dark" if name == PAGE else name]


def as_image(picture: Pixels) -> torch.Tensor:
    """Convert a drawing to an IMAGE, `(1, height, width, 3)` in 0…1."""
    return torch.from_numpy(picture)[None].float() / 255


def describe_lora(title: str, lora: LoRA, clip_connected: bool = True) -> list[str]:
    """Describe a LoRA for a report: formats, ranks, parts, trigger words and notes."""
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
