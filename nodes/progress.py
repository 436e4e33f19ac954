"""How a training node shows itself while it runs: progress bar, loss curve, cancel."""

from __future__ import annotations

import time

import comfy.model_management
import comfy.utils
from PIL import Image

from ..ziplora_core.plots import loss_curves
from ..ziplora_core.training import TrainingRecord

_SECONDS_PER_PICTURE = 2.0


class TrainingProgress:
    """Called by the loop after every step; raises when the person has cancelled."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self._bar = comfy.utils.ProgressBar(steps)
        self._drawn = 0.0

    def __call__(self, record: TrainingRecord) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        self._bar.update_absolute(record.step, self.steps, self._picture(record))

    def prepare(self, done: int, total: int) -> None:
        """Called while the teachers draw, before the first step."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        self._bar.update_absolute(done, total)

    def _picture(self, record: TrainingRecord) -> tuple[str, Image.Image, None] | None:
        """Draw the curve every other second at most: the time belongs to the training."""
        now = time.perf_counter()
        last = record.step == self.steps or record.stopped is not None
        if record.step < 2 or (now - self._drawn < _SECONDS_PER_PICTURE and not last):
            return None
        self._drawn = now
        return ("PNG", Image.fromarray(loss_curves(record.history, self.steps)), None)
