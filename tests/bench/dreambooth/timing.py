"""Timing of training steps of methods that take turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

from .task import Task

Train = Callable[[Task, int, Callable[[], None]], None]
"""A method: `train(task, steps, on_step)` trains and calls `on_step` after each step."""

STEPS = 6
REPETITIONS = 3


def compare(methods: Mapping[str, Train], task: Task) -> dict[str, tuple[float, float]]:
    """Time every method `REPETITIONS` times, after a warm-up run of each.

    They take turns, so that other load on the machine affects all of them alike.

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
    """Return the mean seconds of a step, from the end of the first step to the end of the last."""
    ends: list[float] = []
    train(task, STEPS + 1, lambda: ends.append(time.perf_counter()))
    return (ends[-1] - ends[0]) / STEPS
