"""The history of a training run for the UI: loss points, sample pictures, status."""

from __future__ import annotations

import math
import threading
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from .interface import TrainingRecord
from .sample_strips import Strip

MOST_POINTS = 10_000
"""Largest number of points per loss term; beyond it, every second one is dropped."""
MOST_SAMPLES = 64
"""Largest number of strips of pictures; beyond it, every second one is dropped."""
_SPEED_OVER = 32
"""Number of messages over which the speed is measured."""


class Run:
    """The state of one training run. The loop writes it; the server's routes read it.

    Args:
        node_id: id of the training node; in a subgraph a path, `12:5`.
        steps: number of steps of the whole training; 0 for a closed form.
        workflow: id of the node's workflow; two workflows can have the same node ids.
        saves: whether its steps make a LoRA that can be saved on the way.
        kind, title: the node's class, and its title in that workflow.
    """

    def __init__(
        self, node_id: str, steps: int = 0, workflow: str = "", saves: bool = True,
        kind: str = "", title: str = "",
    ) -> None:  # fmt: skip
        self.node_id, self.steps, self.workflow = node_id, steps, workflow
        self.kind, self.title = kind, title
        self.saves = saves and steps > 0
        self.id = uuid4().hex
        self.stop, self.save = threading.Event(), threading.Event()
        self.stopped = False
        self.state = "running"
        self.record: TrainingRecord | None = None
        self.status = ""
        self.step = 0
        self.saved: list[str] = []
        self.folder = ""
        """Name of its checkpoint folder and record, once they are known."""
        self.resumes = False
        """Whether the same inputs go on from its checkpoint."""
        self.prepared: tuple[int, int] = (0, 0)
        self.errors: list[float] = []
        self._lock = threading.Lock()
        self._seen, self._stride = 0, 1
        self._steps: list[int] = []
        self._terms: dict[str, list[float | None]] = {}
        self._strips: dict[int, Strip] = {}
        self._pace: deque[tuple[float, int]] = deque(maxlen=_SPEED_OVER)

    def ending(self) -> str:
        """Return how a run ended that was neither cancelled nor failed."""
        if self.record is not None and self.record.failed:
            return "rolled back"
        return "stopped" if self.stopped else "finished"

    def take_stop(self) -> bool:
        """Return whether to stop before the next step; a request after the last is too late."""
        self.stopped = self.stop.is_set()
        return self.stopped

    def take_save(self) -> bool:
        """Return whether to write the LoRA now, and clear the request."""
        asked = self.save.is_set()
        self.save.clear()
        return asked

    def update(self, record: TrainingRecord) -> None:
        """Add the new steps of a record, and drop those that were rolled back."""
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
                self._pace.clear()  # it counted evaluations until now
            self._seen, self.step = done, record.step
            if len(self._steps) > MOST_POINTS:
                self._thin_out()

    def tick(self) -> None:
        """Note the time for the speed in steps, or in UNet evaluations before the first step."""
        done = self.step or self.prepared[0]
        if self._pace and done < self._pace[-1][1]:
            self._pace.clear()  # some work is repeated
        if done and (not self._pace or done > self._pace[-1][1]):
            self._pace.append((time.perf_counter(), done))

    def add_strip(self, step: int, strip: Strip) -> None:
        """Store the sample images of a step."""
        with self._lock:
            self._strips[step] = strip
            if len(self._strips) > MOST_SAMPLES:
                for old in sorted(self._strips)[-2::-2]:
                    del self._strips[old]

    def strips(self) -> dict[int, Strip]:
        """Return the sample images that are stored, by their step."""
        with self._lock:
            return dict(self._strips)

    def last(self) -> int:
        """Return the last step with a point, 0 without any."""
        return self._steps[-1] if self._steps else 0

    def snapshot(self, after: int = 0) -> dict[str, Any]:
        """Return the state as JSON values, with the points of the steps after `after` only.

        A reader that has all points up to `after` appends these, and drops its own beyond `step`.
        A value that is not finite is null.
        """
        with self._lock:
            after = min(after, self.last())
            first = bisect_right(self._steps, after)
            points = {name: values[first:] for name, values in self._terms.items()}
            return {
                "run": self.id,
                "node_id": self.node_id,
                "workflow": self.workflow,
                "kind": self.kind,
                "title": self.title,
                "state": self.state,
                "status": self.status,
                "step": self.step,
                "steps": self.steps,
                "prepared": self.prepared,
                "speed": self._speed(),
                "saved": self.saved,
                "folder": self.folder,
                "continues": self.state == "stopped" and self.resumes,
                "errors": [_plain(error) for error in self.errors],
                "samples": sorted(self._strips),
                "captions": self._captions(),
                "after": after,
                "points": {"step": self._steps[first:], **points},
            }

    def _speed(self) -> float | None:
        """Return the recent steps or evaluations per second; None before the second message."""
        if len(self._pace) < 2:
            return None
        (start, first), (end, last) = self._pace[0], self._pace[-1]
        return _plain((last - first) / max(end - start, 1e-9))

    def _captions(self) -> list[list[str] | None]:
        """Return the captions of each of the samples; None where they are those of the last."""
        said, last = [], None
        for _, strip in sorted(self._strips.items()):
            said.append(None if strip.captions == last else [*strip.captions])
            last = strip.captions
        return said

    def _forget_after(self, step: int) -> None:
        kept = bisect_right(self._steps, step)
        for column in (self._steps, *self._terms.values()):
            del column[kept:]
        self._strips = {at: strip for at, strip in self._strips.items() if at <= step}
        self._pace.clear()

    def _thin_out(self) -> None:
        """Drop every second point, which leaves the mean of the curve unbiased."""
        self._stride *= 2
        kept = [n for n, step in enumerate(self._steps) if step % self._stride == 0]
        self._steps = [self._steps[n] for n in kept]
        self._terms = {name: [v[n] for n in kept] for name, v in self._terms.items()}


def summary(runs: Sequence[Run]) -> list[Mapping[str, str]]:
    """List runs, for a reader that then requests those that it shows."""
    return [
        {"run": r.id, "node_id": r.node_id, "workflow": r.workflow, "state": r.state} for r in runs
    ]


def _plain(value: float) -> float | None:
    """Round to five digits, enough for a chart; None for NaN and infinity, which JSON lacks."""
    return float(f"{value:.5g}") if math.isfinite(value) else None
