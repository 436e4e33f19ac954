"""Successive halving: its plan, what it draws, what it keeps, and how it ends early."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch

from ziplora_core.errors import ZipLoRAError
from ziplora_core.merging.strengths import BASELINE, Strengths, parse_strengths, write_strengths
from ziplora_core.merging.successive_halving import Round, Trial, Wish, halve, plan

EIGHT = "1/1, 0.9/0.7, 0.8/0.8, 1/0.8, 0.8/1, 0.7/0.7, 1/0.6, 1.2/0.8"


@dataclass(frozen=True)
class Seen:
    smaller: float


class World:
    """Pictures whose score is a candidate's own value plus noise of their seed."""

    def __init__(self, values: dict[Strengths, float], noise: float = 0.0, most: int = 10**9):
        self.values, self.noise, self.most = values, noise, most
        self.wishes: list[Wish] = []
        self.calls: list[int] = []

    def evaluate(self, wishes: Sequence[Wish]) -> list[Seen]:
        wishes = wishes[: self.most - len(self.wishes)]
        self.calls.append(len(wishes))
        self.wishes += wishes
        return [Seen(self.values[w.strengths] + self._of(w)) for w in wishes]

    def _of(self, wish: Wish) -> float:
        rng = torch.Generator().manual_seed(1000 * wish.number + hash(wish.strengths) % 999)
        return self.noise * float(torch.randn((), generator=rng))


def values(*numbers: float) -> dict[Strengths, float]:
    pairs = [BASELINE, *((0.1 * n, 1.0) for n in range(1, len(numbers)))]
    return dict(zip(pairs, numbers, strict=True))


def test_pairs_of_strengths_are_read_and_the_baseline_comes_first() -> None:
    assert parse_strengths(EIGHT)[:3] == [(1, 1), (0.9, 0.7), (0.8, 0.8)]
    assert len(parse_strengths(EIGHT)) == 8
    assert parse_strengths("0.9 / 0.7\n.8/.8;0.9/0.7, −1/1,") == [
        (1, 1), (0.9, 0.7), (0.8, 0.8), (-1, 1),
    ]  # fmt: skip
    assert write_strengths((0.9, 1.0)) == "0.9 / 1"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "found ''"),
        ("1/1", "found '1/1'"),
        ("0.9, 0.7", "found '0.9'"),
        ("0.9/0.7/1", "found '0.9/0.7/1'"),
        ("0.9/x", "found '0.9/x'"),
        ("0.9/inf", "found '0.9/inf'"),
        ("0/0", "found '0/0'"),
    ],
)
def test_text_that_is_no_list_of_pairs_is_refused(text: str, found: str) -> None:
    with pytest.raises(ZipLoRAError) as error:
        parse_strengths(text)
    assert str(error.value).startswith(f"strengths: {found}, expected pairs")


@pytest.mark.parametrize(
    ("candidates", "budget", "rounds"),
    [
        (8, 32, [(8, 1), (4, 2), (2, 5)]),
        (8, 96, [(8, 4), (4, 8), (2, 16)]),
        (5, 30, [(5, 2), (3, 3), (2, 5)]),
        (2, 9, [(2, 4)]),
        (8, 8, [(8, 1)]),
        (8, 13, [(8, 1), (4, 1)]),
    ],
)
def test_plan_halves_the_candidates_and_stays_within_the_budget(
    candidates: int, budget: int, rounds: list[tuple[int, int]]
) -> None:
    found = plan(candidates, budget)
    assert found == [Round(*this) for this in rounds]
    assert sum(this.total for this in found) <= budget


@pytest.mark.parametrize("budget", [0, 7, -1])
def test_budget_of_less_than_a_picture_each_is_refused(budget: int) -> None:
    with pytest.raises(ZipLoRAError, match=f"pictures: found {budget} for 8 pairs of strengths"):
        plan(8, budget)


def test_every_round_draws_the_same_seeds_for_all_that_are_left() -> None:
    world = World(values(0.1, 0.2, 0.9, 0.8, 0.3, 0.4, 0.5, 0.6))
    trials = halve(list(world.values), 32, world.evaluate)
    assert world.calls == [8, 8, 10]
    first, second, third = world.wishes[:8], world.wishes[8:16], world.wishes[16:]
    assert {wish.number for wish in first} == {0}
    assert [wish.number for wish in second] == [1] * 4 + [2] * 4
    assert [wish.number for wish in third] == [n for n in range(3, 8) for _ in range(2)]
    kept = {wish.strengths for wish in second}
    assert {world.values[s] for s in kept} == {0.1, 0.9, 0.8, 0.6}  # the baseline, and the best
    assert {world.values[wish.strengths] for wish in third} == {0.1, 0.9}
    assert [len(trial.scores) for trial in trials] == [8, 8, 3, 3, 1, 1, 1, 1]
    assert [round(trial.mean, 6) for trial in trials] == [0.9, 0.1, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2]


@pytest.mark.parametrize("seed", range(20))
def test_best_is_never_less_than_the_baseline_on_the_same_pictures(seed: int) -> None:
    numbers = torch.rand(7, generator=torch.Generator().manual_seed(seed)).tolist()
    world = World(values(*numbers), noise=1.0)
    best, *others = halve(list(world.values), 40, world.evaluate)
    (baseline,) = (t for t in (best, *others) if t.strengths == BASELINE)
    assert len(best.scores) == len(baseline.scores) and best.mean >= baseline.mean
    again = World(world.values, noise=1.0)
    assert halve(list(world.values), 40, again.evaluate) == [best, *others]


def test_equal_candidates_leave_the_baseline_first() -> None:
    world = World(values(0.5, 0.5, 0.5, 0.5))
    assert halve(list(world.values), 16, world.evaluate)[0].strengths == BASELINE


@pytest.mark.parametrize("most", range(27))
def test_search_that_ends_early_gives_the_best_of_those_with_the_most_pictures(most: int) -> None:
    world = World(values(0.5, 0.2, 0.9, 0.8, 0.3, 0.4, 0.7, 0.6), noise=0.3, most=most)
    seen: list[Sequence[Trial[Seen]]] = []
    trials = halve(list(world.values), 32, world.evaluate, seen.append)
    assert len(world.wishes) == min(most, 26)
    most_pictures = max(len(trial.scores) for trial in trials)
    among = [trial for trial in trials if len(trial.scores) == most_pictures]
    assert BASELINE in {trial.strengths for trial in among}
    assert trials[0].mean == max(trial.mean for trial in among)
    assert len(trials) == 8 and list(seen[-1]) == trials
