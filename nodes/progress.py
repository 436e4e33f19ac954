"""How a training node shows itself while it runs: progress bar, loss curve, samples, cancel."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

import comfy.model_management
import comfy.utils
from PIL import Image
from server import PromptServer
from torch import Tensor

from ..ziplora_core.plots import bars, loss_curves, strip
from ..ziplora_core.trainable import TrainingRecord, Watch

logger = logging.getLogger(__name__)

_SECONDS_PER_PICTURE = 2.0


def log_warnings(node: str, report: str) -> None:
    """Repeat the report's warnings in the log."""
    for line in report.splitlines():
        if line.startswith("WARNING"):
            logger.warning("%s: %s", node, line)


class TrainingProgress:
    """Told by the loop what happens; raises when the person has cancelled.

    Args:
        node_id: of the node that trains.
        steps: of the whole training.
    """

    def __init__(self, node_id: str, steps: int) -> None:
        self.node_id, self.steps = node_id, steps
        self._bar = comfy.utils.ProgressBar(steps)
        self._drawn = 0.0
        self._samples: Sequence[Tensor] = ()

    def watch(self, stop: threading.Event) -> Watch:
        """What the loop calls; `stop` ends it with what was learned."""
        return Watch(self.step, stop.is_set, self.prepare, self.status, self.samples, self.solved)

    def step(self, record: TrainingRecord) -> None:
        """Called after every step."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        self._bar.update_absolute(record.step, self.steps, self._picture(record))

    def prepare(self, done: int, total: int) -> None:
        """Called while pictures are drawn, before the first step."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        self._bar.update_absolute(done, total)

    def status(self, text: str) -> None:
        """Show on the node what is going on, and what memory it will need."""
        PromptServer.instance.send_progress_text(text, self.node_id)

    def samples(self, step: int, pictures: Sequence[Tensor]) -> None:
        """Show these below the curve from now on."""
        self._samples, self._drawn = pictures, 0.0

    def solved(self, errors: Sequence[float]) -> None:
        """Show how well each pass of the closed form has done."""
        names = ["direct merge", *(f"pass {n}" for n in range(1, len(errors)))]
        values = dict(zip(names, errors, strict=True))
        chart = bars(values, "error of the layers' own outputs, direct merge = 1")
        self._bar.update_absolute(len(errors), len(errors), ("PNG", Image.fromarray(chart), None))

    def _picture(self, record: TrainingRecord) -> tuple[str, Image.Image, None] | None:
        """Draw the curve every other second at most: the time belongs to the training."""
        now = time.perf_counter()
        last = record.step == self.steps or record.stopped is not None
        if record.step < 2 or (now - self._drawn < _SECONDS_PER_PICTURE and not last):
            return None
        self._drawn = now
        chart = loss_curves(record.history, self.steps)
        return ("PNG", Image.fromarray(strip(chart, self._samples)), None)
