"""The report lines that all trainings share: the order of lines, steps and losses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from .interface import TrainingRecord

FIRST = ("WARNING", "Already learned")
"""Beginnings of the lines that a person is to read first, in this order."""


def compose(lines: Iterable[str]) -> str:
    """Join the lines of a report: warnings first, then that nothing was learned anew."""
    return "\n".join(
        sorted(lines, key=lambda line: [not line.startswith(beginning) for beginning in FIRST])
    )


def steps_line(record: TrainingRecord, steps: int) -> str:
    """Report the number of steps and their time, and why the run ended early."""
    line = f"{record.step} of {steps} steps in {record.seconds:.1f} s"
    if record.resumed_at:
        line += f", resumed at {record.resumed_at}"
    if record.asked_to_stop:
        line += "; to go on from there, press Continue on the node or in Past trainings"
    return f"{line}; {record.stopped}" if record.stopped else line


def kept_line(record: TrainingRecord) -> list[str]:
    """Report where the last state of a training is kept, and for how long."""
    if record.origin is None:
        return []
    place = Path(*record.origin.folder.parts[-2:]).as_posix()
    why = "to continue from" if record.asked_to_stop else "until it is saved or exported"
    return [f"state kept {why}: {place}"]


def loss_line(
    history: Mapping[str, Sequence[float]], terms: Sequence[str], window: int = 10
) -> list[str]:
    """Report the loss terms at the start and at the end, each the mean of a few steps."""
    if not history:
        return []
    window = max(1, min(window, len(history["loss"]) // 2))
    spans = [
        f"{name} {_mean(history[name][:window]):.4g} → {_mean(history[name][-window:]):.4g}"
        for name in terms
    ]
    return [f"loss, first and last {window} steps: " + ", ".join(spans)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
