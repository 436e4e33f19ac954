"""What else the judge sees, weighed by ridge regression: does any of it tell the better merge?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import mean

import torch
from torch import Tensor

from .conditions import STRENGTHS
from .judge import COMPOSED, MERGES, JudgedPair, scores
from .stats import spearman

RIDGE = 0.1
"""The ridge, relative to the number of rows; all weights shrink alike."""
KINDS = (*MERGES, COMPOSED)

Feature = Callable[[Tensor], Tensor]
"""From the products of a cell `(picture, level, 3, 3)` to a vector."""


def ranks(
    judged: Sequence[JudgedPair], tuning: Sequence[JudgedPair], of: Feature, kinds: bool
) -> float:
    """Rank each pair's merges by weights that the other tuning pairs were fitted with.

    A merge's sum of both is fitted by ridge regression on the features of its pictures, each
    standardised within its pair. A pair that shares a LoRA is not among the others.

    Args:
        kinds: whether other kinds of merge are ranked, too, or strengths of the direct merge only.

    Returns:
        the mean of Spearman's correlation over the pairs.
    """
    found = []
    for pair in judged:
        others = [o for o in tuning if not pair.pair.shares_with(o.pair)]
        fitted = (_standard(other, of, kinds) for other in others)
        x, y = (torch.cat(part) for part in zip(*fitted, strict=True))
        weights = torch.linalg.solve(x.T @ x + RIDGE * len(x) * torch.eye(x.shape[1]), x.T @ y)
        mine, sums = _standard(pair, of, kinds)
        found.append(spearman((mine @ weights).tolist(), sums.tolist()))
    return mean(found)


def smaller_ranks(judged: Sequence[JudgedPair], kinds: bool) -> float:
    """Rank each pair's merges by the smaller one of both scores, as the node does."""
    found = []
    for pair in judged:
        score = scores(pair)
        rows = [(float(score[name].amin(1).mean()), pair.both(name)) for name in cells(kinds)]
        found.append(spearman(*(list(column) for column in zip(*rows, strict=True))))
    return mean(found)


def cells(kinds: bool) -> tuple[str, ...]:
    """Name the merges that are ranked."""
    return (*STRENGTHS, *KINDS) if kinds else tuple(STRENGTHS)


def _standard(pair: JudgedPair, of: Feature, kinds: bool) -> tuple[Tensor, Tensor]:
    x = torch.stack([of(pair.products[name]) for name in cells(kinds)])
    y = torch.tensor([pair.both(name) for name in cells(kinds)], dtype=torch.float64)
    return (x - x.mean(0)) / (x.std(0) + 1e-6), (y - y.mean()) / (y.std() + 1e-6)


def _amounts(kept: Tensor) -> Tensor:
    """Both amounts at each level, of each picture."""
    solved = torch.linalg.solve(kept[..., :2, :2].double(), kept[..., :2, 2].double())
    return solved.flatten(1)


def _mean_amounts(kept: Tensor) -> Tensor:
    return _amounts(kept).mean(0)


def _likelihood(kept: Tensor) -> Tensor:
    """The base model's error at each level: its likelihood's terms (Ho et al. 2020, eq. 14)."""
    return kept[..., 2, 2].double().log().mean(0)


def _over_seeds(kept: Tensor) -> Tensor:
    """How far the pictures of one prompt differ: self-consistency."""
    return _amounts(kept).std(0)


FEATURES: dict[str, Feature] = {
    "amounts at each level": _mean_amounts,
    "the base's own likelihood": _likelihood,
    "spread of the amounts over seeds": _over_seeds,
    "all three": lambda kept: torch.cat(
        [_mean_amounts(kept), _likelihood(kept), _over_seeds(kept)]
    ),
}
