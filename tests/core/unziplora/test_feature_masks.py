"""UnZipLoRA's feature_masks: when they are chosen, how many, and by whom."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ziplora_core.errors import ZipLoRAError
from ziplora_core.lora.coefficients import CONTENT, STYLE
from ziplora_core.lora.factors import LoraFactors
from ziplora_core.unziplora.feature_masks import (
    FeatureMasks,
    Schedule,
    importance,
    owners,
    schedule,
)
from ziplora_core.unziplora.options import UnZipLoRASettings

from ..lora.factors import random_factors

BLOCKS = {
    "input_blocks.4.1": None, "input_blocks.5.1": None, "input_blocks.7.1": None,
    "input_blocks.8.1": None, "middle_block.1": None,
    "output_blocks.0.1": CONTENT, "output_blocks.1.1": STYLE, "output_blocks.2.1": CONTENT,
    "output_blocks.3.1": STYLE, "output_blocks.4.1": STYLE, "output_blocks.5.1": STYLE,
}  # fmt: skip
"""The whole table of the paper's supplement."""


def module(block: str) -> str:
    return f"lora_unet_{block.replace('.', '_')}_transformer_blocks_0_attn1_to_q"


def feature_masks(owned: dict[str, int] | None = None, out: int = 40) -> FeatureMasks:
    return FeatureMasks({"a": out, "b": out}, owned or {}, "cpu")


def scores(seed: int, out: int = 40) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {name: torch.rand(2, out, generator=rng) for name in "ab"}


def test_owners_are_those_of_the_table() -> None:
    found = owners([module(block) for block in BLOCKS])
    assert {block: found.get(module(block)) for block in BLOCKS} == BLOCKS


def test_owners_of_a_model_with_a_block_less_are_nobody() -> None:
    assert owners([module(block) for block in BLOCKS if block != "output_blocks.2.1"]) == {}
    assert owners([module("output_blocks.10.1")]) == {}


def test_schedule_600_steps_3_times_has_the_events_of_the_paper() -> None:
    steps = Schedule(600, 3)
    assert [g for g in range(600) if steps.opens(g)] == [0, 200, 400]
    assert [g for g in range(600) if steps.chooses(g)] == [1, 201, 401]
    assert [g for g in range(600) if steps.is_open(g)] == [0, 1, 201, 401]
    assert [steps.choices(g) for g in (0, 1, 200, 201, 401, 599)] == [0, 1, 1, 2, 3, 3]


@pytest.mark.parametrize(("steps", "times"), [(10, 4), (7, 3), (2, 1), (6, 3), (600, 7)])
def test_schedule_never_leaves_a_choice_out(steps: int, times: int) -> None:
    events = Schedule(steps, times)
    assert sum(events.chooses(g) for g in range(steps)) == times
    assert events.choices(steps - 1) == times


def test_schedule_without_separation_is_always_open() -> None:
    events = schedule(UnZipLoRASettings("a", "b", "c", column_separation=False, column_ratio=0.0))
    assert all(events.is_open(g) and not events.chooses(g) for g in range(600))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"column_ratio": 0.0}, "column_ratio: found 0, expected a share above 0 and at most 1"),
        ({"column_ratio": 1.01}, "column_ratio: found 1.01"),
        ({"column_ratio": float("nan")}, "column_ratio: found nan"),
        ({"sample_times": 601}, "sample_times: found 601 in 600 steps"),
        ({"sample_times": 301}, "sample_times: found 301 in 600 steps, .* at most half"),
        ({"sample_times": 0}, "sample_times: found 0"),
    ],
)
def test_schedule_that_cannot_be_kept_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ZipLoRAError, match=message):
        schedule(UnZipLoRASettings("a", "b", "c", **changed))


@pytest.mark.parametrize("ratio", [0.1, 0.15, 1 / 8])
def test_extend_gives_exactly_the_share_and_no_column_to_both(ratio: float) -> None:
    chosen = feature_masks()
    for k in (1, 2, 3):
        before = chosen.flat.clone()
        chosen.extend(scores(k), ratio * k, disjoint=False)
        assert torch.equal(chosen.flat & before, before)  # what was chosen stays
        for mask in chosen.by_module().values():
            assert mask.sum(1).tolist() == [round(ratio * k * 40)] * 2
            assert not (mask[CONTENT] & mask[STYLE]).any()
    assert not chosen.overlap.any()


def test_extend_takes_the_highest_scores_content_first() -> None:
    chosen, given = feature_masks(), scores(1)
    chosen.extend(given, 0.1, disjoint=False)
    mask, score = chosen.by_module()["a"], given["a"]
    assert set(score[CONTENT].topk(4).indices.tolist()) == set(
        mask[CONTENT].nonzero()[:, 0].tolist()
    )
    free = score[STYLE].masked_fill(mask[CONTENT], 0)
    assert set(free.topk(4).indices.tolist()) == set(mask[STYLE].nonzero()[:, 0].tolist())


def test_extend_loses_no_tie() -> None:
    """Equal scores, as those of a layer that has no gradient at all, still fill the share."""
    chosen = feature_masks()
    for k in (1, 2):
        chosen.extend({name: torch.zeros(2, 40) for name in "ab"}, 0.1 * k, disjoint=False)
        assert all(mask.sum(1).tolist() == [4 * k] * 2 for mask in chosen.by_module().values())


def test_extend_more_than_there_is_gives_each_half() -> None:
    chosen = feature_masks()
    for k in (1, 2, 3):
        chosen.extend(scores(k), 0.3 * k, disjoint=False)
    assert all(mask.sum(1).tolist() == [20, 20] for mask in chosen.by_module().values())
    assert not chosen.overlap.any()


def test_extend_owner_has_all_the_other_its_share() -> None:
    chosen = feature_masks({"a": STYLE})
    chosen.extend(scores(1), 0.25, disjoint=False)
    assert chosen.by_module()["a"].sum(1).tolist() == [10, 40]
    assert chosen.by_module()["b"].sum(1).tolist() == [10, 10]
    overlap = chosen.views(chosen.overlap)
    assert torch.equal(overlap["a"], chosen.by_module()["a"][CONTENT].expand(2, -1))
    assert not overlap["b"].any()


def test_extend_disjoint_owner_has_all_alone() -> None:
    chosen = feature_masks({"a": CONTENT})
    chosen.extend(scores(1), 0.25, disjoint=True)
    assert chosen.by_module()["a"].sum(1).tolist() == [40, 0]
    assert chosen.by_module()["b"].sum(1).tolist() == [10, 10] and not chosen.overlap.any()


def test_detached_keeps_what_was_chosen_when_more_is_chosen_later() -> None:
    chosen = feature_masks({"a": CONTENT})
    chosen.extend(scores(0), 0.1, disjoint=False)
    kept, masks = chosen.detached(), chosen.flat.clone()
    chosen.extend(scores(1), 0.4, disjoint=False)
    assert not torch.equal(chosen.flat, masks)
    assert torch.equal(kept.flat, masks) and kept.flat.device.type == "cpu"
    assert kept.chosen and kept.overlap.any() and kept.overlap.device.type == "cpu"
    assert (kept.heights, kept.owned) == (chosen.heights, chosen.owned)


@pytest.mark.parametrize("kernel", [0, 3])
def test_importance_is_the_dense_definition_and_free_of_scale(kernel: int) -> None:
    factors, gradient = (random_factors(3, 8, 6, kernel=kernel, seed=s) for s in (1, 2))
    row = torch.rand(6, generator=torch.Generator().manual_seed(3))
    step = 1e-3
    moved = LoraFactors(
        factors.down + step * gradient.down, factors.up + step * gradient.up
    ).delta()
    change = (moved - factors.delta()) / step
    dense = (factors.delta() * change).flatten(1).abs().sum(1) * row
    got = importance(factors, gradient, row)
    torch.testing.assert_close(got, dense, rtol=2e-2, atol=1e-2)
    small = LoraFactors(gradient.down * 2**-40, gradient.up * 2**-40)
    assert torch.equal(importance(factors, small, row) * 2**40, got)
