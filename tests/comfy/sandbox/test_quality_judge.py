"""The judge's figures, on pairs made of numbers: what is fitted, ranked, chosen and learned."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from quality.conditions import STRENGTHS
from quality.judge import (
    ENDS,
    LEVELS,
    NODE,
    JudgedPair,
    amounts,
    calibrated,
    error_differences,
    scores,
)
from quality.judge_features import FEATURES, KINDS, ranks
from quality.judge_tables import best_constant, by_level, correlations, fooled, learned, regrets
from quality.subjects import TUNING, Pair
from ziplora_core.plots.judge import fit_amounts

PICTURES = 4
SUMS = (1.1, 1.0, 0.9, 1.3, 1.2, 0.8, 0.7)
"""The sum of both at each strength, half of it subject and half style: the fourth is best."""


def products_of(content: float, style: float, seed: int) -> Tensor:
    """Make the products of a cell whose fitted amounts are about these."""
    generator = torch.Generator().manual_seed(seed)
    sides = torch.randn(PICTURES, len(LEVELS), 2, 64, generator=generator)
    rest = 0.01 * torch.randn(PICTURES, len(LEVELS), 64, generator=generator)
    missing = content * sides[:, :, 0] + style * sides[:, :, 1] + rest
    whole = torch.cat([sides, missing[:, :, None]], 2)
    return whole @ whole.mT / whole.shape[-1]


def judged(pair: Pair, sums: Mapping[str, float], shown: Mapping[str, float]) -> JudgedPair:
    """Make a pair whose judge sees `shown` of both LoRAs where the probes see half of `sums`."""
    made = JudgedPair(pair)
    ends = dict(zip(ENDS, ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0)), strict=True))
    for n, (name, (a, b)) in enumerate({**ends, **{k: (v, v) for k, v in shown.items()}}.items()):
        made.products[name] = products_of(a, b, n)
        steps = [sums.get(name, 0.5) / 2 + 0.001 * i for i in range(PICTURES)]
        made.figures[name] = {"subject": steps, "style": steps, "both right": [0.0] * PICTURES}
    return made


def right(pair: Pair) -> JudgedPair:
    """A pair whose judge sees the right order."""
    sums = dict(zip((*STRENGTHS, *KINDS), (*SUMS, 0.6, 0.4, 0.2), strict=True))
    return judged(pair, sums, {name: value / 2 for name, value in sums.items()})


@pytest.fixture
def pairs() -> list[JudgedPair]:
    return [right(pair) for pair in TUNING[:4]]


def test_amounts_are_the_nodes() -> None:
    noise, base, content, style = torch.randn(4, len(NODE), 3, 4, 4).double()
    sides = torch.stack([content - base, style - base, noise - base], 1).flatten(2)
    kept = torch.zeros(1, len(LEVELS), 3, 3).double()
    kept[0, list(NODE)] = sides @ sides.mT
    found, want = amounts(kept)[0], fit_amounts(noise, base, content, style)
    assert found.tolist() == pytest.approx([want.content, want.style], rel=1e-9)
    errors = [(noise - p).square().sum() for p in (base, content, style)]
    assert error_differences(kept)[0].tolist() == pytest.approx(
        [float(errors[0] - errors[1]), float(errors[0] - errors[2])]
    )


def test_scores_are_zero_of_the_base_and_one_of_each_lora_alone() -> None:
    found = scores(right(TUNING[0]))
    base, content, style = (found[name].mean(0) for name in ENDS)
    assert base.tolist() == pytest.approx([0, 0], abs=1e-9)
    assert [float(content[0]), float(style[1])] == pytest.approx([1, 1])


def test_a_lora_whose_own_pictures_have_no_more_of_it_cannot_judge(
    pairs: list[JudgedPair],
) -> None:
    assert all(map(calibrated, pairs))
    weak = pairs[0]
    weak.products[ENDS[1]] = products_of(-0.2, 0.0, 9)
    assert not calibrated(weak)


def test_a_judge_that_sees_the_order_ranks_it_and_loses_nothing(pairs: list[JudgedPair]) -> None:
    ranked = correlations(pairs)
    for side in ("subject", "style"):
        assert ranked[side]["pair"] == pytest.approx(1)
    assert by_level(pairs)["the node's four"]["style"] == ranked["style"]["pair"]
    lost = regrets(pairs, pairs)
    best = {"regret": "0.000", "worst": "0.000", "best": "4 of 4", "style": "0 of 4"}
    assert lost["the judge"] == lost["the probes"] == best
    assert lost["always 1 / 1"]["best"] == "0 of 4" and lost["chance"]["best"] is None
    assert lost["the best constant"]["regret"] == "0.000"
    assert lost["always 1 / 1"]["regret"] == "0.200"
    assert lost["chance"]["regret"] == "0.300"


def test_best_constant_is_chosen_by_pairs_without_a_lora_in_common() -> None:
    names = list(STRENGTHS)
    mine, shares, other = TUNING[0], TUNING[6], TUNING[1]
    assert mine.shares_with(shares) and not mine.shares_with(other)
    tuning = [
        judged(pair, {name: float(name == best) for name in names}, dict.fromkeys(names, 1.0))
        for pair, best in zip((mine, shares, other), names, strict=False)
    ]
    assert best_constant(tuning[0], tuning) == names[2]


def test_features_that_tell_the_sum_are_learned_from_other_pairs(pairs: list[JudgedPair]) -> None:
    table = learned(pairs, pairs)
    assert table["amounts at each level"]["kinds"] == pytest.approx(1, abs=0.05)
    assert table["unweighed: the smaller score"]["kinds"] == pytest.approx(1)
    for pair in pairs[1:]:  # the judge of the others sees the opposite
        pair.figures = {
            name: {side: [-v for v in values] for side, values in cell.items()}
            for name, cell in pair.figures.items()
        }
    told = ranks(pairs[:1], pairs, FEATURES["amounts at each level"], kinds=True)
    assert told == pytest.approx(-1, abs=0.05)


def test_fooled_leaves_out_the_strengths_but_one(pairs: list[JudgedPair]) -> None:
    table = fooled(pairs)
    assert set(table) == {*ENDS, *KINDS, "direct"}
    assert table["content LoRA alone"]["judge, subject"] == pytest.approx(1)
    assert table["direct"]["style"] == pytest.approx(SUMS[0] / 2 + 0.0015)
