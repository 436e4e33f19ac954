"""Outputs that many nodes share, with the same tooltips."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .types import MergedLoRAType


def lora_output() -> io.LoraModel.Output:
    """A LoRA that is not saved yet."""
    return io.LoraModel.Output(
        "lora", tooltip="For Save Trained LoRA, or any node that takes a LORA_MODEL."
    )


def merged_output() -> Any:
    """A merge of two LoRAs."""
    return MergedLoRAType.Output(
        "merged", tooltip="The merge: for the nodes that apply, save or plot it."
    )


def unziplora_output() -> Any:
    """The content LoRA and the style LoRA of UnZipLoRA."""
    return MergedLoRAType.Output("merged", tooltip="Both LoRAs, for Apply UnZipLoRA.")


def loss_output() -> io.LossMap.Output:
    """The loss history of a training."""
    return io.LossMap.Output("loss", tooltip="Every term of the loss, for Plot Loss.")


def report_output() -> io.String.Output:
    """The report of a node."""
    return io.String.Output("report", tooltip="The report shown on the node, as text.")


def lora_name_output() -> io.String.Output:
    """The name of the file that was written."""
    return io.String.Output("lora_name", tooltip="The file's name, as LoRA loaders list it.")


def grid_outputs() -> list[Any]:
    """A labelled grid, and its single images."""
    return [
        io.Image.Output("grid", tooltip="All images in one, with their labels."),
        io.Image.Output("images", tooltip="The single images, row by row."),
    ]
