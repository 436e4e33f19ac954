"""Outputs that many nodes have, in the same words."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .types import MergedLoRAType


def lora_output() -> io.LoraModel.Output:
    """A LoRA that is in no file yet."""
    return io.LoraModel.Output(
        "lora", tooltip="For Save Trained LoRA, or any node that takes a LORA_MODEL."
    )


def merged_output() -> Any:
    """Two LoRAs, joined."""
    return MergedLoRAType.Output(
        "merged", tooltip="Subject and style, joined: for the nodes that apply, save or draw it."
    )


def unzipped_output() -> Any:
    """The two LoRAs of one picture."""
    return MergedLoRAType.Output("merged", tooltip="Both, for Apply UnZipLoRA.")


def loss_output() -> io.LossMap.Output:
    """The loss of a training."""
    return io.LossMap.Output("loss", tooltip="The loss, term by term: for Plot Loss.")


def report_output() -> io.String.Output:
    """What a node says."""
    return io.String.Output("report", tooltip="What the node shows, as text.")


def lora_name_output() -> io.String.Output:
    """The file that was written."""
    return io.String.Output("lora_name", tooltip="The file's name, as LoRA loaders list it.")


def grid_outputs() -> list[Any]:
    """Pictures that belong together."""
    return [
        io.Image.Output("grid", tooltip="All pictures in one, with their numbers."),
        io.Image.Output("images", tooltip="Each picture by itself, row by row."),
    ]
