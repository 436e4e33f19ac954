"""What tells one run's checkpoint from another's."""

from __future__ import annotations

import torch

from ziplora_core.checkpoint import fingerprint, sampled


def test_fingerprint_changes_with_any_input() -> None:
    base = fingerprint({"steps": 1}, {"a": torch.ones(2)})
    assert base == fingerprint({"steps": 1}, {"a": torch.ones(2)})
    others = [
        fingerprint({"steps": 2}, {"a": torch.ones(2)}),
        fingerprint({"steps": 1}, {"a": torch.zeros(2)}),
        fingerprint({"steps": 1}, {"b": torch.ones(2)}),
        fingerprint({"steps": 1}, {"a": torch.ones(2, 1)}),
    ]
    assert len({base, *others}) == 5


def test_sampled_takes_few_values_of_many_columns() -> None:
    taken = sampled(torch.arange(640 * 640.0))
    assert 200 < taken.numel() < 520
    assert len(set((taken % 640).tolist())) > 100
