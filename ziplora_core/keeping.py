"""What must never cost a training: its messages, pictures, measurements, metadata and report."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from .report import compose
from .trainable import Watch

logger = logging.getLogger(__name__)

Made = TypeVar("Made")
Instead = TypeVar("Instead")


def attempt(
    what: str, make: Callable[[], Made], notes: list[str], instead: Instead
) -> Made | Instead:
    """Make what a result can do without; where that fails, note and log it, and give `instead`.

    A cancel passes through: ComfyUI's is no `Exception`. Of an act that fails again and again only
    the first time is noted and logged: a page that cannot be reached fails three times a second.

    Args:
        what: the act, as in "drawing the sample pictures".
        make: does it.
        notes: the report's lines, to which a failure is added as a warning.
        instead: what to go on with.
    """
    try:
        return make()
    except Exception as error:  # the one broad one: whatever it is, the training is worth more
        said = f"WARNING: {what} failed"
        if not any(note.startswith(said) for note in notes):
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            notes.append(f"{said} ({reason}). The LoRA itself is not affected; the log says more.")
            logger.exception("ZipLoRA: %s failed", what)
    return instead


def composed(write: Callable[[], str], notes: list[str]) -> str:
    """Compose a report with all that has failed on top, be it the report itself.

    Args:
        write: gives the report as it would be.
        notes: see `attempt`.
    """
    report = attempt("writing the report", write, notes, "")
    return compose([*notes, *report.splitlines()])


def forgiving(watch: Watch, notes: list[str]) -> Watch:
    """Make a watch whose failing messages, previews among them, are noted and cost nothing else."""

    def told(tell: Callable[..., None]) -> Callable[..., None]:
        def safely(*said: Any) -> None:
            attempt("showing the training on the page", partial(tell, *said), notes, None)

        return safely

    return replace(
        watch,
        on_step=told(watch.on_step),
        on_prepare=told(watch.on_prepare),
        on_status=told(watch.on_status),
        on_samples=told(watch.on_samples),
        on_solved=told(watch.on_solved),
        on_saved=told(watch.on_saved),
    )
