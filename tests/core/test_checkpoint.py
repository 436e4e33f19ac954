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
    assert sampled(torch.arange(1000.0)).numel() <= 67
