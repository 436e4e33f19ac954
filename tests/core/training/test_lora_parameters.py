"""A new LoRA's factors in one leaf."""

from __future__ import annotations

import pytest
import torch

from ziplora_core.training.lora_parameters import LoRAParameters, full_width

SHAPES = {"a": (8, 6), "b": (4, 8, 3, 3), "c": (2, 40)}


def parameters(rank: int = 4, alpha: float = 2.0, seed: int = 0) -> LoRAParameters:
    return LoRAParameters(SHAPES, rank, alpha, torch.Generator().manual_seed(seed))


def test_new_lora_is_no_change_and_starts_as_kaiming_uniform() -> None:
    for name, factors in parameters().detached().items():
        assert not factors.delta().any()
        assert factors.delta().shape == SHAPES[name]
        bound = factors.down[0].numel() ** -0.5
        assert 0.8 * bound < float(factors.down.abs().max()) <= bound


def test_new_lora_narrow_module_gets_its_width_and_the_same_scale() -> None:
    factors = parameters().detached()
    assert [f.rank for f in factors.values()] == [4, 4, 2]
    assert {f.scale for f in factors.values()} == {0.5}
    assert [full_width(s) for s in SHAPES.values()] == [6, 4, 2]


def test_new_lora_same_seed_same_start() -> None:
    assert torch.equal(parameters().flat, parameters().flat)
    assert not torch.equal(parameters().flat, parameters(seed=1).flat)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_factors_pass_gradients_back_to_the_leaf(dtype: torch.dtype) -> None:
    lora = parameters()
    factors = lora.factors(dtype)
    sum((f.down.float().sum() + 2 * f.up.float().sum()) for f in factors.values()).backward()
    assert lora.flat.grad is not None and lora.flat.grad.dtype == torch.float32
    counts = [f.down.numel() for f in factors.values()], [f.up.numel() for f in factors.values()]
    assert float(lora.flat.grad.sum()) == sum(counts[0]) + 2 * sum(counts[1])


def test_detached_factors_are_copies() -> None:
    lora = parameters()
    copied = lora.detached()
    with torch.no_grad():
        lora.flat.zero_()
    assert all(f.down.any() for f in copied.values())
