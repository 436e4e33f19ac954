"""The solution of the closed form, kept until the merge is in a file."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import torch

from ...lora.coefficients import MergerCoefficients
from ...training.checkpoint import CheckpointFolder
from ...training.interface import ProgressCallbacks
from ...training.saved_state import SavedState, check_fit
from ...ziplora.closed_form import ClosedForm
from ...ziplora.options import ZipLoRASettings

logger = logging.getLogger(__name__)

_ERRORS = "errors"


def solved_once(
    folder: CheckpointFolder | None,
    coefficients: MergerCoefficients,
    settings: ZipLoRASettings,
    callbacks: ProgressCallbacks,
    notes: list[str],
    solve: Callable[[], ClosedForm],
) -> ClosedForm:
    """Take the solution of a run of the same inputs whose merge was not saved, or solve.

    It is kept as the state of a training without steps, unless passes were left out.

    Args:
        folder: the checkpoint folder; None where gradient steps follow, which are kept instead.
        coefficients: the coefficients, which get the solution.
        settings, callbacks: see `ZipLoRASession`.
        notes: the report's notes, for what was found or could not be kept.
        solve: solves for the coefficients.
    """
    layout = {_ERRORS: ((settings.passes + 2,), torch.float64)}
    if folder and settings.options.resume == "auto":
        found = folder.load(lambda state: check_fit(state, 0, [coefficients.flat], layout, {}))
        notes += found.notes
        if found.state is not None:
            with torch.no_grad():
                coefficients.flat.copy_(found.state.parameters[0])
            lines = [
                *found.state.notes,
                f"Already learned: the merge was taken from {folder.path.name}",
            ]
            error, *errors = found.state.extra_state[_ERRORS].tolist()
            errors = [] if math.isnan(errors[0]) else errors
            callbacks.on_solved(errors)
            return ClosedForm(coefficients.detached(), settings.passes, error, errors, lines)
    solved = solve()
    coefficients.set(solved.columns)
    if folder and solved.passes == settings.passes:
        without = [math.nan] * (settings.passes + 1)
        errors = torch.tensor([solved.error, *(solved.errors or without)], dtype=torch.float64)
        try:
            folder.save(
                SavedState([coefficients.flat], {_ERRORS: errors}, {}, 0, 0, notes=solved.notes)
            )
        except (OSError, MemoryError) as error:
            notes.append(f"the solution is not kept: {error}")
            logger.warning("ZipLoRA: %s", notes[-1])
    return solved
