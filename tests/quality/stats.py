"""How sure a difference is, by the bootstrap (Efron 1979), and rank correlation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

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
    """Estimate a mean difference and its 95 % interval.

    Pairs are drawn with replacement, and within each its pictures, each with its partner of the
    same noise: the interval says how far other pairs of this world would move the mean. A
    percentile interval of few pairs is too narrow, so its ends are moved away from the mean by
    √(n / (n − 1)) · t₍n₋₁₎ / z (the expanded percentile interval of
    Hesterberg 2015, arXiv:1411.5279).

    Args:
        ours, theirs: a figure of each picture, by pair; the same pictures in the same order.

    Raises:
        ValueError: they are not of the same pairs and pictures, or of one pair only.
    """
    if len(ours) < 2:
        raise ValueError(f"found {len(ours)} pairs, expected two or more")
    if [len(row) for row in ours] != [len(row) for row in theirs]:
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
    mean = float(np.mean([row.mean() for row in differences]))
    n = len(differences)
    wider = np.sqrt(n / (n - 1)) * stats.t.ppf(1 - edge, n - 1) / stats.norm.ppf(1 - edge)
    low, high = mean + wider * (np.quantile(drawn, (edge, 1 - edge)) - mean)
    return Interval(mean, float(low), float(high))


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Rank correlation (Spearman 1904), equal values sharing their ranks' mean; 0 of a constant."""
    ranks = [stats.rankdata(values) for values in (a, b)]
    if any(np.ptp(of) == 0 for of in ranks):
        return 0.0
    return float(np.corrcoef(ranks)[0, 1])
