"""The benchmark's arithmetic: intervals, tables, the split of pairs."""

from __future__ import annotations

import numpy as np
import pytest

from miniworld import shapes, styles
from quality import stats, subjects


def test_tuning_and_test_pairs_share_no_subject_palette_or_texture() -> None:
    tuning, test = (
        [{p.subject for p in pairs}, {p.style for p in pairs}]
        for pairs in (subjects.TUNING, subjects.TEST)
    )
    assert len(subjects.PAIRS) == len(set(subjects.PAIRS)) >= 16
    assert not tuning[0] & test[0]
    assert not {s.palette for s in tuning[1]} & {s.palette for s in test[1]}
    assert not {s.texture for s in tuning[1]} & {s.texture for s in test[1]}


def test_every_held_out_factor_has_a_pair_and_none_is_seen() -> None:
    assert {p.subject for p in subjects.PAIRS} == set(shapes.HELD_OUT)
    assert {p.style for p in subjects.PAIRS} == set(styles.HELD_OUT)
    assert all(p.example in shapes.SEEN for p in subjects.PAIRS)


def test_difference_is_the_mean_over_pairs() -> None:
    ours, theirs = [[1.0, 1.5], [0.5, 0.5]], [[0.5, 0.5], [0.5, 1.0]]
    found = stats.paired_difference(ours, theirs)
    assert found.mean == pytest.approx((0.75 - 0.25) / 2)
    assert found.low <= found.mean <= found.high


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Of 400 experiments with 8 pairs, about 95 % hold the true difference of 0.1."""
    generator = np.random.default_rng(3)
    held = 0
    for n in range(400):
        pair = 0.1 + 0.2 * generator.standard_normal(8)
        ours = (pair[:, None] + 0.1 * generator.standard_normal((8, 2))).tolist()
        found = stats.paired_difference(ours, np.zeros((8, 2)).tolist(), seed=n)
        held += found.low <= 0.1 <= found.high
    assert 0.925 <= held / 400 <= 0.975


def test_interval_of_equal_figures_is_nothing() -> None:
    same = [[0.3, 0.4], [0.5, 0.6]]
    assert stats.paired_difference(same, same) == stats.Interval(0.0, 0.0, 0.0)


@pytest.mark.parametrize("theirs", [[[1.0], [1.0]], [[1.0, 1.0], [1.0]]])
def test_other_pictures_are_refused(theirs: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="expected the same pictures"):
        stats.paired_difference([[1.0, 1.0], [1.0, 1.0]], theirs)


def test_one_pair_has_no_interval() -> None:
    with pytest.raises(ValueError, match="found 1 pairs"):
        stats.paired_difference([[1.0, 1.0]], [[1.0, 1.0]])


def test_rank_correlation_gives_equal_values_their_mean_rank() -> None:
    assert stats.spearman([1.0, 2.0, 3.0], [10.0, 20.0, 90.0]) == pytest.approx(1)
    assert stats.spearman([1.0, 2.0, 2.0, 3.0], [4.0, 3.0, 3.0, 1.0]) == pytest.approx(-1)
    assert stats.spearman([1.0, 2.0, 3.0], [5.0, 5.0, 5.0]) == 0
