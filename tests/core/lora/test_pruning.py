"""Pruning zeroes exactly the smallest entries, and the counts are those of the dense updates."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ziplora_core.errors import ZipLoRAError
from ziplora_core.lora.factors import LoraFactors
from ziplora_core.lora.pruning import count_entries, pruned

from .factors import NoFloat64


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.8, 0.9, 1.0])
@pytest.mark.parametrize("digits", [7, 1], ids=["all different", "many ties"])
def test_pruned_update_equals_a_stable_sort(share: float, digits: int) -> None:
    delta = torch.round(drawn(10, 6, 3, 3), decimals=digits)
    before = delta.clone()
    flat = delta.flatten().numpy().copy()
    smallest = np.argsort(np.abs(flat), kind="stable")[: round(share * flat.size)]
    flat[smallest] = 0
    got = pruned(delta, share)
    assert torch.equal(got.flatten(), torch.from_numpy(flat)) and torch.equal(delta, before)


def test_pruned_update_of_equal_entries_keeps_the_last_ones() -> None:
    ones = torch.ones(2, 5)
    assert pruned(ones, 0.7).tolist() == [[0.0] * 5, [0.0, 0.0, 1.0, 1.0, 1.0]]


@pytest.mark.parametrize("share", [-0.1, 1.01, float("nan")])
def test_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ZipLoRAError, match=r"prune: found .*between 0 and 1"):
        pruned(torch.ones(2, 2), share)


def test_counts_and_kept_norms_are_those_of_all_dense_updates() -> None:
    modules = {
        f"m{n}": LoraFactors(size * drawn(3, *inner, seed=n), drawn(8, 3, *k, seed=n + 9), 2.0)
        for n, (size, inner, k) in enumerate(
            [(1e-3, (10,), ()), (0.5, (6, 3, 3), (1, 1)), (0.02, (12,), ())]
        )
    }
    entries = count_entries(modules)
    deltas = [factors.delta() for factors in modules.values()]
    flat = torch.cat([delta.flatten() for delta in deltas])
    assert entries.total == flat.numel() and entries.modules == 3
    assert entries.largest == float(flat.abs().max()) < entries.reach <= 2 * entries.largest
    reach = entries.reach
    assert torch.equal(entries.counts, torch.histc(flat, 1024, -reach, reach).long())
    for share, kept in entries.kept.items():
        left = torch.cat([pruned(delta, share).flatten() for delta in deltas])
        assert kept == pytest.approx(float(left.norm() / flat.norm()), rel=1e-5)


def test_counts_of_an_update_that_is_zero_are_all_in_the_middle() -> None:
    entries = count_entries({"m": LoraFactors(torch.zeros(2, 4), torch.zeros(3, 2))})
    assert entries.total == 12 and entries.largest == 0 and set(entries.kept.values()) == {1.0}


def test_counts_need_no_float64() -> None:
    modules = {
        "linear": LoraFactors(drawn(3, 10), drawn(8, 3, seed=1)),
        "convolution": LoraFactors(drawn(3, 6, 3, 3, seed=2), drawn(8, 3, 1, 1, seed=3)),
    }
    with NoFloat64():
        entries = count_entries(modules)
    assert entries.total == 80 + 8 * 54 and entries.kept[0.9] < entries.kept[0.8] < 1
