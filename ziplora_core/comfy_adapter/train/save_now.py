"""Saving of the LoRA so far while a training continues."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from functools import partial

from ...errors import ZipLoRAError
from ...lora.factors import LoRA
from ...training.interface import ProgressCallbacks
from ...training.protection import attempt
from ..folders import save_lora

logger = logging.getLogger(__name__)

UNFINISHED = "unfinished"
"""The folder of LoRAs that were saved on the way, so that lists of LoRAs show what they are."""
_LONGEST = 32
NOT_SAVED = "WARNING: not saved."
"""The start of a status that explains why there is no file; the page looks for it."""


def save_so_far(
    callbacks: ProgressCallbacks,
    notes: list[str],
    name: str,
    step: int,
    export: Callable[[], Mapping[str, LoRA]],
) -> None:
    """Save the current LoRAs for LoRA loaders; tell the page and the report what was not written.

    Args:
        callbacks: callbacks that are told.
        notes: see `attempt`.
        name: a name that the user knows the training by.
        step: number of steps done.
        export: returns LoRAs by the last part of their file names, "" for a single one.
    """
    loras = attempt("exporting the LoRA so far", export, notes, None)
    if loras is None:
        callbacks.on_status(f"{NOT_SAVED} Step {step}: the log says why.")
        return
    names: list[str] = []
    failed = ""

    def write(part: str, lora: LoRA) -> str:
        nonlocal failed
        try:
            return _write(name, step, part, lora)
        except (OSError, MemoryError, ZipLoRAError) as error:
            failed = f"Step {step}{part and f', the {part} LoRA'}: {error or type(error).__name__}"
            return ""

    for part, lora in loras.items():
        saved = attempt("saving the LoRA so far", partial(write, part, lora), notes, "")
        if not saved:
            break
        names.append(saved)
    if names:
        callbacks.on_saved(names, step)
    if failed:
        written = f" Written was {' and '.join(names)}." if names else ""
        logger.warning("ZipLoRA: not saved. %s%s", failed, written)
        notes.append(f"{NOT_SAVED} {failed}{written}")
    if len(names) < len(loras):
        callbacks.on_status(f"{NOT_SAVED} {failed or f'Step {step}: the log says why.'}")


def file_stem(text: str) -> str:
    """Return the words of a text as one short name that every file system takes."""
    return "_".join(re.findall(r"[^\W_]+", text))[:_LONGEST].strip("_") or "lora"


def _write(name: str, step: int, part: str, lora: LoRA) -> str:
    """Write one LoRA; return its name, as LoRA loaders list it.

    Raises:
        OSError, MemoryError, ZipLoRAError: the disk or the LoRA prevents it.
    """
    words = file_stem(name.replace(".safetensors", ""))
    stem = "_".join(filter(None, (words, part, f"{step:05}")))
    description = f"{part} LoRA of an unfinished training at step {step}".strip()
    saved, _ = save_lora(
        lora.modules, f"{UNFINISHED}/{stem}", "fp16", description, lora.metadata, plain=True
    )
    logger.info("ZipLoRA: step %d is saved as %s", step, saved)
    return saved
