"""What a training shows of itself, kept for whoever asks late: points, pictures, status."""

from __future__ import annotations

import math
import threading
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from .trainable import TrainingRecord

MOST_POINTS = 10_000
"""Of a term; beyond them, every second one is left out."""
MOST_SAMPLES = 64
"""Pictures that are kept; beyond them, every second one is forgotten."""
_SPEED_OVER = 32
"""Messages that the speed is measured over."""


class Run:
    """One training as others see it. The loop writes, the server's routes read.

    Args:
        node_id: of the node that trains; in a subgraph a path, `12:5`.
        steps: of the whole training; 0 for a closed form.
        workflow: id of the workflow it is in; two of them can have the same node ids.
    """

    def __init__(self, node_id: str, steps: int = 0, workflow: str = "") -> None:
        self.node_id, self.steps, self.workflow = node_id, steps, workflow
        self.id = uuid4().hex
        self.stop, self.save = threading.Event(), threading.Event()
        self.stopped = False
        self.state = "running"
        self.record: TrainingRecord | None = None
        self.status = ""
        self.step = 0
        self.saved: list[str] = []
        self.prepared: tuple[int, int] = (0, 0)
        self.errors: list[float] = []
        self._lock = threading.Lock()
        self._seen, self._stride = 0, 1
        self._steps: list[int] = []
        self._terms: dict[str, list[float | None]] = {}
        self._pictures: dict[int, bytes] = {}
        self._pace: deque[tuple[float, int]] = deque(maxlen=_SPEED_OVER)

    def ending(self) -> str:
        """How it has ended, when it came to an end of its own."""
        if self.record is not None and self.record.failed:
            return "rolled back"
        return "stopped" if self.stopped else "finished"

    def take_stop(self) -> bool:
        """Whether to stop before what comes next; where nothing does, a stop comes too late."""
        self.stopped = self.stop.is_set()
        return self.stopped

    def take_save(self) -> bool:
        """Whether the LoRA is to be written now; says so once for each time it was asked."""
        asked = self.save.is_set()
        self.save.clear()
        return asked

    def update(self, record: TrainingRecord) -> None:
        """Take over the steps that are new; those that were rolled back are forgotten."""
        done = len(next(iter(record.history.values()), ()))
        self.record = record
        with self._lock:
            if done < self._seen:
                self._forget_after(done)
            for step in range(self._seen + 1, done + 1):
                if step % self._stride == 0:
                    self._steps.append(step)
                    for name, values in record.history.items():
                        self._terms.setdefault(name, []).append(_plain(values[step - 1]))
            if not self.step:
                self._pace.clear()  # of the evaluations
            self._seen, self.step = done, record.step
            if len(self._steps) > MOST_POINTS:
                self._thin_out()

    def tick(self) -> None:
        """Note the time, for the speed: of steps, before the first one of UNet evaluations."""
        done = self.step or self.prepared[0]
        if self._pace and done < self._pace[-1][1]:
            self._pace.clear()  # some of it is done again
        if done and (not self._pace or done > self._pace[-1][1]):
            self._pace.append((time.perf_counter(), done))

    def add_picture(self, step: int, jpeg: bytes) -> None:
        """Keep the samples of a step, as one picture."""
        with self._lock:
            self._pictures[step] = jpeg
            if len(self._pictures) > MOST_SAMPLES:
                for old in sorted(self._pictures)[-2::-2]:
                    del self._pictures[old]

    def picture(self, step: int) -> bytes | None:
        """The samples of a step, JPEG."""
        return self._pictures.get(step)

    def last(self) -> int:
        """The last step that there is a point of."""
        return self._steps[-1] if self._steps else 0

    def snapshot(self, after: int = 0) -> dict[str, Any]:
        """Say how it goes, as JSON has it; with points only of the steps `after` one.

        A reader that has all points up to `after` adds these to its own, and drops those beyond
        `step`; a value that is not finite is null.
        """
        with self._lock:
            after = min(after, self.last())
            first = bisect_right(self._steps, after)
            points = {name: values[first:] for name, values in self._terms.items()}
            return {
                "run": self.id,
                "node_id": self.node_id,
                "workflow": self.workflow,
                "state": self.state,
                "status": self.status,
                "step": self.step,
                "steps": self.steps,
                "prepared": self.prepared,
                "speed": self._speed(),
                "saved": self.saved,
                "errors": [_plain(error) for error in self.errors],
                "samples": sorted(self._pictures),
                "after": after,
                "points": {"step": self._steps[first:], **points},
            }

    def _speed(self) -> float | None:
        """Steps, or evaluations, per second of late; None before the second message."""
        if len(self._pace) < 2:
            return None
        (start, first), (end, last) = self._pace[0], self._pace[-1]
        return _plain((last - first) / max(end - start, 1e-9))

    def _forget_after(self, step: int) -> None:
        kept = bisect_right(self._steps, step)
        for column in (self._steps, *self._terms.values()):
            del column[kept:]
        self._pictures = {at: jpeg for at, jpeg in self._pictures.items() if at <= step}
        self._pace.clear()

    def _thin_out(self) -> None:
        """Leave out every second point: as true of the mean as all are, and half as many."""
        self._stride *= 2
        kept = [n for n, step in enumerate(self._steps) if step % self._stride == 0]
        self._steps = [self._steps[n] for n in kept]
        self._terms = {name: [v[n] for n in kept] for name, v in self._terms.items()}


def summary(runs: Sequence[Run]) -> list[Mapping[str, str]]:
    """Name runs, for a reader that then asks for those it shows."""
    return [
        {"run": r.id, "node_id": r.node_id, "workflow": r.workflow, "state": r.state} for r in runs
    ]


def _plain(value: float) -> float | None:
    """Five digits are enough to draw; JSON has no NaN and no infinity."""
    return float(f"{value:.5g}") if math.isfinite(value) else None
