"""How sure a difference is: the bootstrap (Efron 1979) over pairs and their pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 4_000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def paired_difference(
    ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]], seed: int = 0
) -> Interval:
    """Estimate a mean difference and its 95 % percentile interval.

    Pairs are drawn with replacement, and within each its pictures, each with its partner of the
    same noise: the interval says how far other pairs of this world would move the mean.

    Args:
        ours, theirs: a figure of each picture, by pair; the same pictures in the same order.

    Raises:
        ValueError: they are not of the same pairs and pictures.
    """
    if [len(row) for row in ours] != [len(row) for row in theirs] or not ours:
        raise ValueError("found figures of other pictures, expected the same pictures in both")
    differences = [np.subtract(a, b) for a, b in zip(ours, theirs, strict=True)]
    generator = np.random.default_rng(seed)
    # every pair's mean over a drawn set of its pictures, DRAWS times
    means = np.stack([
        row[generator.integers(len(row), size=(DRAWS, len(differences), len(row)))].mean(2)
        for row in differences
    ])  # fmt: skip
    chosen = generator.integers(len(differences), size=(DRAWS, len(differences)))
    drawn = means[chosen, np.arange(DRAWS)[:, None], np.arange(len(differences))].mean(1)
    edge = (1 - LEVEL) / 2
    low, high = np.quantile(drawn, (edge, 1 - edge))
    return Interval(float(np.mean([row.mean() for row in differences])), float(low), float(high))
