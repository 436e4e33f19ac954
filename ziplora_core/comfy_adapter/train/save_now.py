"""Saving of the LoRA so far while a training continues."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from ...errors import ZipLoRAError
from ...lora.factors import LoRA
from ...training.interface import ProgressCallbacks
from ...training.protection import attempt
from ..folders import save_lora

logger = logging.getLogger(__name__)

NOT_SAVED = "WARNING: not saved."
"""The start of a status that explains why there is no file; the page looks for it."""


def save_so_far(
    callbacks: ProgressCallbacks,
    notes: list[str],
    run: str,
    step: int,
    export: Callable[[], Mapping[str, LoRA]],
) -> None:
    """Save the current LoRAs for LoRA loaders, and report their names or the reason for a failure.

    Args:
        callbacks: callbacks that are told.
        notes: see `attempt`.
        run: name of the training's checkpoint folder.
        step: number of steps done.
        export: returns LoRAs by the last part of their file names, "" for a single one.
    """
    written = attempt(
        "saving the LoRA so far", lambda: _write(callbacks, run, step, export()), notes, False
    )
    if not written:
        callbacks.on_status(f"{NOT_SAVED} The log says why.")


def _write(callbacks: ProgressCallbacks, run: str, step: int, loras: Mapping[str, LoRA]) -> bool:
    """Write the LoRAs, or report why the disk or a LoRA prevents it; return True in both cases."""
    try:
        names = []
        for part, lora in loras.items():
            name = "_".join(filter(None, (f"step_{step:05}", part)))
            description = f"{part} LoRA of a training at step {step}".strip()
            prefix = f"ziplora_{run}/{name}"
            saved, _ = save_lora(lora.modules, prefix, "fp16", description, lora.metadata)
            logger.info("ZipLoRA: step %d is saved as %s", step, saved)
            names.append(saved)
        callbacks.on_saved(names)
    except (OSError, ZipLoRAError) as error:
        logger.warning("ZipLoRA: the LoRA so far could not be written: %s", error)
        callbacks.on_status(f"{NOT_SAVED} {error}")
    return True
