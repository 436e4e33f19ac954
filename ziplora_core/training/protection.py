"""Protection of a training from failures in its messages, pictures, metadata and report."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from .interface import ProgressCallbacks
from .report import compose

logger = logging.getLogger(__name__)

Made = TypeVar("Made")
Instead = TypeVar("Instead")


def attempt(
    what: str, make: Callable[[], Made], notes: list[str], instead: Instead
) -> Made | Instead:
    """Call a function that the result can do without; note and log its failure.

    A cancel passes through, as ComfyUI's is not an `Exception`. A repeated failure is noted and
    logged only once: an unreachable page fails three times a second.

    Args:
        what: name of the action, as in "drawing the sample pictures".
        make: the function.
        notes: lines of the report, to which a failure is added as a warning.
        instead: value to return after a failure.
    """
    try:
        return make()
    except Exception as error:  # broad on purpose: no such error may end the training
        said = f"WARNING: {what} failed"
        if not any(note.startswith(said) for note in notes):
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            notes.append(f"{said} ({reason}). The LoRA itself is not affected; see the log.")
            logger.exception("ZipLoRA: %s failed", what)
    return instead


def composed(write: Callable[[], str], notes: list[str]) -> str:
    """Compose a report with all failures on top, even a failure of the report itself.

    Args:
        write: returns the report.
        notes: the notes of `attempt`.
    """
    report = attempt("writing the report", write, notes, "")
    return compose([*notes, *report.splitlines()])


def forgiving(callbacks: ProgressCallbacks, notes: list[str]) -> ProgressCallbacks:
    """Wrap callbacks so that failures of messages and previews are noted and go no further."""

    def told(tell: Callable[..., None]) -> Callable[..., None]:
        def safely(*said: Any) -> None:
            attempt("showing the training on the page", partial(tell, *said), notes, None)

        return safely

    return replace(
        callbacks,
        on_step=told(callbacks.on_step),
        on_prepare=told(callbacks.on_prepare),
        on_status=told(callbacks.on_status),
        on_start=told(callbacks.on_start),
        on_samples=told(callbacks.on_samples),
        on_solved=told(callbacks.on_solved),
        on_saved=told(callbacks.on_saved),
    )
