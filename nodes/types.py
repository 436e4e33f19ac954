"""The pack's own types, and what several nodes do alike."""

from __future__ import annotations

from typing import Any

import folder_paths
import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..ziplora_core.comfy_adapter.paths import lora_path
from ..ziplora_core.errors import problem
from ..ziplora_core.files import lora_from_tensors, read_lora
from ..ziplora_core.files.metadata import trigger_words
from ..ziplora_core.lora import LoRA
from ..ziplora_core.plots.style import THEMES, Pixels

NONE = "None"
"""In a list of files: there is none, a wire brings it."""

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


def pair_input() -> Any:
    """A content and a style LoRA."""
    return LoRAPairType.Input("pair", tooltip="Both LoRAs, from Load LoRA Pair.")


def merged_input() -> Any:
    """A merge of two LoRAs."""
    return MergedLoRAType.Input("merged", tooltip="From a merge, or Load Merged LoRA.")


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


def lora_file_input(name: str, what: str, **others: Any) -> io.Combo.Input:
    """A LoRA file, or None where a LORA_MODEL takes its place."""
    return io.Combo.Input(
        name, options=[NONE, *folder_paths.get_filename_list("loras")], tooltip=what, **others
    )


def read_either(name: str, file: str, lora_model: Any | None) -> LoRA:
    """Read the file of one input, or the LORA_MODEL of its twin `<name>_model`.

    Raises:
        ZipLoRAError: neither, both, or no LoRA.
    """
    if lora_model is not None and file == NONE:
        return lora_from_tensors(lora_model, name=f"{name}_model", bias_and_norm="drop")
    if lora_model is None and file != NONE:
        return read_lora(lora_path(file), "drop")
    raise problem(
        name,
        found="nothing" if file == NONE else f"both the file {file} and a LORA_MODEL",
        expected="one of the two",
        advice=f"Pick a file in {name}, or set it to None and connect {name}_model.",
    )


def theme_input() -> io.Combo.Input:
    """The ground of a figure."""
    return io.Combo.Input(
        "theme",
        options=list(THEMES),
        default="dark",
        optional=True,
        tooltip="dark for the canvas, light for paper.",
    )


def as_image(picture: Pixels) -> torch.Tensor:
    """Give a drawn picture the form of an IMAGE, `(1, height, width, 3)` in 0…1."""
    return torch.from_numpy(picture)[None].float() / 255


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
