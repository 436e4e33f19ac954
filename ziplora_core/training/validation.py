"""Minimums of a training's settings, as a widget does not check a number from a link."""

from __future__ import annotations

from ..errors import problem
from .lora_objective import TrainerSettings

MINIMUMS = {
    "steps": 1,
    "rank": 1,
    "alpha": 0.01,
    "resolution": 64,
    "range": 0.05,
    "importance_samples": 1,
    "batch": 1,
    "accumulation": 1,
}
"""The widgets' minimums, by the setting's name."""


def refuse_below_minimum(settings: TrainerSettings) -> None:
    """Refuse numbers below their minimum, in the settings or in their options.

    Raises:
        ZipLoRAError: a number is too small; the message names the first one.
    """
    for name, value in {**vars(settings), **vars(settings.options)}.items():
        if name in MINIMUMS and not value >= MINIMUMS[name]:
            raise problem(
                name,
                found=f"{value:g}",
                expected=f"{MINIMUMS[name]:g} or more",
                advice="Correct the node that gives this number.",
            )
