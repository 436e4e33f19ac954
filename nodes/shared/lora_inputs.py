"""LoRA inputs: a file from ComfyUI's folder, or a LORA_MODEL from another node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import folder_paths
from comfy_api.latest import io

from ...ziplora_core.comfy_adapter.folders import find_lora, lora_path
from ...ziplora_core.errors import problem
from ...ziplora_core.files import lora_from_tensors, read_lora
from ...ziplora_core.files.fingerprint import fingerprint
from ...ziplora_core.files.reader import PEFT_SETTINGS
from ...ziplora_core.lora.factors import LoRA
from .before_run import UNLINKED, unless_linked
from .picked import picked_names

NONE = "None"
"""The entry of a file list that stands for no file: the LoRA comes from a connected input."""

WITH_BASES = {"ziplora_with_bases": True}
"""The option of a list in which `js/other_bases.js` marks files of other base models."""


def bias_and_norm_input() -> io.Combo.Input:
    """The input that decides about the parts of a LoRA that are not low-rank factors."""
    return io.Combo.Input(
        "bias_and_norm",
        options=["refuse", "drop"],
        default="refuse",
        optional=True,
        advanced=True,
        tooltip="Some trainers also change biases and norms, which low-rank factors cannot hold. "
        "refuse rejects such a LoRA; drop leaves these parts out and reports how many.",
    )


def lora_file_input(name: str, what: str, **others: Any) -> io.Combo.Input:
    """A LoRA file, or None if a LORA_MODEL is connected instead."""
    options = [NONE, *folder_paths.get_filename_list("loras")]
    return io.Combo.Input(name, options=options, tooltip=what, extra_dict=WITH_BASES, **others)


def picked_files(**picked: str | None) -> bool | str:
    """Validate the values of LoRA file lists, by the names of their inputs; see `picked_names`."""
    files = {name: value for name, value in picked.items() if value != NONE}
    return picked_names(folder_paths.get_filename_list("loras"), "ComfyUI's loras folders", files)


def read_either(name: str, file: str, lora_model: Any | None, bias_and_norm: Any = "drop") -> LoRA:
    """Read the file of one input, or the LORA_MODEL of its twin `<name>_model`.

    Raises:
        ZipLoRAError: neither is given, or both are, or it is not a LoRA.
    """
    refuse_none_or_both(name, file, lora_model is not None)
    if lora_model is not None:
        return lora_from_tensors(lora_model, name=f"{name}_model", bias_and_norm=bias_and_norm)
    return read_lora(lora_path(file), bias_and_norm)


def refuse_none_or_both(name: str, file: str, has_model: bool) -> None:
    """Refuse an input that has neither a file nor a LORA_MODEL, or both.

    Raises:
        ZipLoRAError: this is the case.
    """
    if (file != NONE) == has_model:
        if file == NONE:
            found, advice = "None", f"Pick a LoRA file in {name}, or connect {name}_model."
        else:
            found = f"both the file {file} and a LORA_MODEL"
            advice = f"Set {name} to None, or disconnect {name}_model."
        raise problem(name, found=found, expected="a LoRA from one of the two", advice=advice)


def check_either(name: str, file: str | None, lora_model: object) -> Callable[[], object]:
    """Make a check before the run that a file is picked, or its twin is connected, and not both.

    Args:
        name: the file's input.
        file: its value; None if it is linked itself.
        lora_model: the value of `<name>_model` in a `validate_inputs`; see `before_run`.
    """
    return unless_linked(
        lambda known: refuse_none_or_both(name, known, lora_model is not UNLINKED), file
    )


def file_fingerprint(name: str) -> object:
    """Return a value that changes with the content of a LoRA file and of PEFT's settings beside it.

    ComfyUI then runs the node again for a new version of the file.
    """
    path = find_lora(name)
    return path and [fingerprint(path), fingerprint(path.with_name(PEFT_SETTINGS))]
