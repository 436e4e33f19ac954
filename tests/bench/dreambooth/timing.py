"""Seconds per training step of methods that take turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

from .task import Task

Train = Callable[[Task, int, Callable[[], None]], None]
"""Train some steps and report after each of them: `train(task, steps, on_step)`."""

STEPS = 6
REPETITIONS = 3


def compare(methods: Mapping[str, Train], task: Task) -> dict[str, tuple[float, float]]:
    """Time every method `REPETITIONS` times, after one run each that does not count.

    They take turns, so that whatever else the machine does falls on all of them alike.

    Returns:
        The median seconds per step, and the median ratio to the first method in the same round.
    """
    for train in methods.values():
        _seconds(train, task)
    rounds = [[_seconds(train, task) for train in methods.values()] for _ in range(REPETITIONS)]
    return {
        name: (median(s[i] for s in rounds), median(s[i] / s[0] for s in rounds))
        for i, name in enumerate(methods)
    }


def _seconds(train: Train, task: Task) -> float:
    """Time a step: from the end of a run's first step to that of its last."""
    ends: list[float] = []
    train(task, STEPS + 1, lambda: ends.append(time.perf_counter()))
    return (ends[-1] - ends[0]) / STEPS
