"""Optimisers and schedules."""

from __future__ import annotations

import pytest
import torch

from ziplora_core.errors import ZipLoRAError
from ziplora_core.optimisers import learning_rate_factor, make_optimiser


def test_learning_rate_factor_warms_up_and_falls() -> None:
    linear = [learning_rate_factor(s, 10, "linear", 2) for s in range(10)]
    assert linear[:3] == [1 / 3, 2 / 3, 1.0] and linear[-1] == pytest.approx(1 / 8)
    cosine = [learning_rate_factor(s, 10, "cosine", 0) for s in range(11)]
    assert cosine[0] == 1.0 and cosine[5] == pytest.approx(0.5) and cosine[10] < 1e-9
    assert learning_rate_factor(9, 10, "constant", 0) == 1.0


def test_make_optimiser_adam_moves_by_the_learning_rate_under_tiny_gradients() -> None:
    leaf = torch.ones(3, requires_grad=True)
    optimiser = make_optimiser("adam", [leaf], [0.01])
    leaf.grad = torch.tensor([1e-9, -1e-9, 1e-3])
    optimiser.step()
    torch.testing.assert_close(leaf.detach(), torch.tensor([0.99, 1.01, 0.99]), atol=1e-5, rtol=0)


def test_make_optimiser_keeps_a_learning_rate_for_each_leaf() -> None:
    leaves = [torch.ones(2, requires_grad=True) for _ in range(2)]
    optimiser = make_optimiser("adamw", leaves, [0.1, 0.001])
    for leaf in leaves:
        leaf.grad = torch.ones(2)
    optimiser.step()
    moved = [float(1 - leaf.detach()[0]) for leaf in leaves]
    assert moved == pytest.approx([0.1 * 1.01, 0.001 * 1.01], rel=1e-4)  # with weight decay 0.01


def test_make_optimiser_8bit_without_its_package_says_what_to_do() -> None:
    with pytest.raises(ZipLoRAError, match=r"adamw_8bit: found no bitsandbytes.*Choose adamw"):
        make_optimiser("adamw_8bit", [torch.ones(2, requires_grad=True)], [0.1])
