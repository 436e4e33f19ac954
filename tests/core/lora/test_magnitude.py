"""Warnings of huge updates, and only of these."""

from __future__ import annotations

import torch

from ziplora_core.lora.factors import LoraFactors
from ziplora_core.lora.magnitude import huge_updates

from .factors import random_factors


def test_huge_updates_names_the_largest() -> None:
    usual = random_factors(4, width=64, height=64, alpha=0.1)
    large = LoraFactors(100 * usual.down, usual.up)
    larger = LoraFactors(1e6 * usual.down, usual.up)
    assert huge_updates({"a": usual}) == []
    (line,) = huge_updates({"a": usual, "b": large, "c": larger})
    assert line.startswith("WARNING: the update of 2 of 3 modules is far larger")
    assert "(c: 2.1e+06 on average" in line


def test_huge_updates_that_cancel_are_none() -> None:
    half = torch.full((1, 8), 1e3)
    both = torch.cat([half, half])
    assert huge_updates({"a": LoraFactors(both, torch.tensor([[1e3, -1e3]] * 8))}) == []
