"""Writes the LoRA so far while the training goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from ..errors import ZipLoRAError
from ..keeping import attempt
from ..lora import LoRA
from ..trainable import Watch
from .paths import save_lora

logger = logging.getLogger(__name__)

NOT_SAVED = "WARNING: not saved."
"""How a status begins that says why there is no file."""


def save_so_far(
    watch: Watch, notes: list[str], run: str, step: int, export: Callable[[], Mapping[str, LoRA]]
) -> None:
    """Write LoRAs where LoRA loaders look, and say where; a disk that is full is said, too.

    Args:
        watch: who asked for it.
        notes: see `attempt`.
        run: name of the training's checkpoint folder.
        step: how far it is.
        export: gives the LoRAs by what stands in the file's name; "" for the only one.
    """
    written = attempt(
        "saving the LoRA so far", lambda: _write(watch, run, step, export()), notes, False
    )
    if not written:
        watch.on_status(f"{NOT_SAVED} The log says why.")


def _write(watch: Watch, run: str, step: int, loras: Mapping[str, LoRA]) -> bool:
    """Write them, or say what is wrong with the disk or the LoRA; True when either is done."""
    try:
        names = []
        for part, lora in loras.items():
            name = "_".join(filter(None, (f"step_{step:05}", part)))
            description = f"{part} LoRA of a training at step {step}".strip()
            prefix = f"ziplora_{run}/{name}"
            saved, _ = save_lora(lora.modules, prefix, "fp16", description, lora.metadata)
            logger.info("ZipLoRA: step %d is saved as %s", step, saved)
            names.append(saved)
        watch.on_saved(names)
    except (OSError, ZipLoRAError) as error:
        logger.warning("ZipLoRA: the LoRA so far could not be written: %s", error)
        watch.on_status(f"{NOT_SAVED} {error}")
    return True
