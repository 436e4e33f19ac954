"""Timing of contenders that take turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import comfy.model_management
import torch

Contender = Callable[[int], Any]
"""A contender: a function that does its n-th piece of work."""
BASE = "base UNet, batch 2"
"""The contender that all others are compared with."""
SHORTEST = 0.3
"""Seconds of a turn of the base."""


def seconds(work: Callable[[], object], now: Callable[[], float] = time.perf_counter) -> float:
    """Time one call, including the device's queued work."""
    _wait()
    begun = now()
    work()
    _wait()
    return now() - begun


def _wait() -> None:
    if comfy.model_management.get_torch_device().type == "cuda":
        torch.cuda.synchronize()


class Turns:
    """Contenders that take turns, each right after a turn of the base.

    Other load on the machine then affects all contenders alike, and its speed at the moment affects
    both of a pair.

    Args:
        contenders: contenders by name, including the base.
        now: the clock; `time.process_time` ignores other processes, and adds up all threads.

    `first` holds the results of their first pieces of work, a warm-up that is not timed.
    """

    def __init__(
        self,
        contenders: Mapping[str, Contender],
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.contenders, self.now = contenders, now
        self.first = {name: work(0) for name, work in contenders.items()}
        self.done = 1
        self.calls = max(1, round(SHORTEST / self._turn(BASE, 1)))
        self.taken: dict[str, list[float]] = {name: [] for name in contenders}
        self._base_before: dict[str, list[float]] = {name: [] for name in contenders}

    def take(self, rounds: int) -> None:
        """Give each contender a turn of some pieces of work, in every round."""
        for _ in range(rounds):
            for name, taken in self.taken.items():
                if name != BASE:
                    base = self._turn(BASE, self.calls)
                    self.taken[BASE].append(base)
                    self._base_before[name].append(base)
                    taken.append(self._turn(name, self.calls))
            self.done += self.calls

    def _turn(self, name: str, calls: int) -> float:
        """Return the seconds of one piece of work."""
        work = self.contenders[name]
        return seconds(lambda: [work(self.done + i) for i in range(calls)], self.now) / calls

    def seconds(self, name: str) -> float:
        """Return the median seconds over the rounds."""
        return median(self.taken[name])

    def units(self, name: str) -> float:
        """Return the median over the rounds, in halves of the base's time right before."""
        if name == BASE:
            return 2.0
        pairs = zip(self.taken[name], self._base_before[name], strict=True)
        return median(2 * own / base for own, base in pairs)
