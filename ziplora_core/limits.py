"""The least that a training's numbers can be: a number that is wired in passes by its widget."""

from __future__ import annotations

from .errors import problem
from .options import DreamBoothSettings, SliderSettings, UnZipSettings

LEAST = {
    "steps": 1,
    "rank": 1,
    "alpha": 0.01,
    "resolution": 64,
    "range": 0.05,
    "importance_samples": 1,
    "batch": 1,
    "accumulation": 1,
}
"""By setting, the widgets' own."""


def refuse_below_least(settings: DreamBoothSettings | UnZipSettings | SliderSettings) -> None:
    """Refuse a number that no training can be made with, in the settings or their options.

    Raises:
        ZipLoRAError: naming the first one.
    """
    for name, value in {**vars(settings), **vars(settings.options)}.items():
        if name in LEAST and not value >= LEAST[name]:
            raise problem(
                name,
                found=f"{value:g}",
                expected=f"{LEAST[name]:g} or more",
                advice="Correct the node that gives this number.",
            )
