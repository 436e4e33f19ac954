"""Successive halving: a few pictures for every candidate, more for those that do well.

Jamieson and Talwalkar 2016, arXiv:1502.07943, algorithm 1, with a baseline that always stays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from ..errors import problem
from .strengths import Strengths


class Scored(Protocol):
    """What is known of one picture."""

    @property
    def smaller(self) -> float:
        """The smaller of the scores of subject and style: both have to be there."""
        ...


Score = TypeVar("Score", bound=Scored)


@dataclass(frozen=True)
class Trial(Generic[Score]):
    """A candidate and the scores of its pictures; the picture n of each has the same seed."""

    strengths: Strengths
    scores: tuple[Score, ...] = ()

    @property
    def mean(self) -> float:
        """The mean of the smaller scores; −∞ without pictures."""
        smaller = [score.smaller for score in self.scores]
        return sum(smaller) / len(smaller) if smaller else -math.inf


@dataclass(frozen=True)
class Round:
    """How many candidates are left in a round, and how many more pictures each of them gets."""

    candidates: int
    pictures: int

    @property
    def total(self) -> int:
        return self.candidates * self.pictures


@dataclass(frozen=True)
class Wish:
    """A picture to draw: a candidate, and the number of its seed from 0."""

    strengths: Strengths
    number: int


Evaluate = Callable[[Sequence[Wish]], Sequence[Score]]
OnRound = Callable[[Sequence[Trial[Score]]], None]


def plan(candidates: int, budget: int) -> list[Round]:
    """Divide a budget of pictures among rounds that halve the candidates.

        rounds = ⌈log2 n⌉    pictures = ⌊budget / (rounds · candidates left)⌋, at least 1

    A round for which the budget is not enough is left out, so it is never exceeded.

    Args:
        candidates: their number n, at least 2.
        budget: the largest number of pictures in all rounds.

    Raises:
        ZipLoRAError: the budget is less than one picture for each candidate.
    """
    if budget < candidates:
        raise problem(
            "pictures",
            found=f"{budget} for {candidates} pairs of strengths",
            expected="at least one for each pair, and with other_merged twice as many",
            advice="Raise pictures, or list fewer strengths.",
        )
    rounds: list[Round] = []
    left, spent, count = candidates, 0, math.ceil(math.log2(candidates))
    for _ in range(count):
        this = Round(left, max(1, budget // (count * left)))
        if spent + this.total > budget:
            break
        rounds.append(this)
        spent += this.total
        left = math.ceil(left / 2)
    return rounds


def halve(
    candidates: Sequence[Strengths],
    budget: int,
    evaluate: Evaluate[Score],
    on_round: OnRound[Score] = lambda trials: None,
) -> list[Trial[Score]]:
    """Search the best of the candidates; return a trial of each, the best first.

    In every round the candidates that are left get pictures with the same seeds, one seed after
    the other, and the better half by the mean over all pictures so far stays. The first candidate
    is the baseline: it stays to the end, so the best one scores no less than it does on the same
    pictures.

    Args:
        candidates: the baseline, then the others.
        budget: see `plan`.
        evaluate: draws and scores pictures, in order. Fewer scores than wishes end the search; a
            seed that not all have got is then left out, unless it is the first.
        on_round: called after every round with all trials, the best first.

    Raises:
        ZipLoRAError: see `plan`.
    """
    scores: dict[Strengths, tuple[Score, ...]] = {strengths: () for strengths in candidates}
    ranked = list(candidates)
    for this in plan(len(candidates), budget):
        left = kept(ranked, candidates[0], this.candidates)
        first = len(scores[candidates[0]])
        wishes = [Wish(s, first + n) for n in range(this.pictures) for s in left]
        found = evaluate(wishes)
        ended = len(found) < len(wishes)
        counted = len(found) // len(left) * len(left)  # only seeds that all of them have
        for wish, score in zip(wishes, found[: counted if first else None], strict=False):
            scores[wish.strengths] += (score,)
        trials = rank([Trial(strengths, scores[strengths]) for strengths in candidates])
        on_round(trials)
        if ended:
            break
        ranked = [trial.strengths for trial in trials]
    return rank([Trial(strengths, scores[strengths]) for strengths in candidates])


def kept(ranked: Sequence[Strengths], baseline: Strengths, count: int) -> list[Strengths]:
    """Return the baseline and the best others, `count` in all."""
    others = [strengths for strengths in ranked if strengths != baseline]
    return [baseline, *others[: count - 1]]


def rank(trials: Sequence[Trial[Score]]) -> list[Trial[Score]]:
    """Sort trials: those with the most pictures first, and among them the best by mean.

    Means of different numbers of pictures are of different seeds, so they do not compare. Equal
    trials stay in order, the baseline first.
    """
    return sorted(trials, key=lambda trial: (-len(trial.scores), -trial.mean))
