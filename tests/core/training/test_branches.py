"""Branches: the concatenated, gated, scaled product equals the dense updates it stands for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ziplora_core.lora.factors import LoraFactors
from ziplora_core.training.branches import Branches, Gates

from ..lora.factors import random_factors

KERNELS = [0, 1, 3]


def layer_of(kernel: int) -> nn.Module:
    if kernel:
        return nn.Conv2d(6, 5, kernel, stride=2, padding=kernel // 2, bias=False)
    return nn.Linear(6, 5, bias=False)


def input_of(kernel: int, samples: int = 3) -> torch.Tensor:
    rng = torch.Generator().manual_seed(1)
    shape = (samples, 6, 8, 8) if kernel else (samples, 7, 6)
    return torch.randn(shape, generator=rng)


def dense(layer: nn.Module, x: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    """Apply the layer's own operation with `delta` as its weight."""
    with torch.no_grad():
        layer.weight.copy_(delta)
    return layer(x).detach()


def pair(kernel: int) -> list[LoraFactors]:
    return [
        random_factors(2, kernel=kernel, alpha=1.0, seed=1),
        random_factors(3, kernel=kernel, alpha=6.0, seed=2),
    ]


@pytest.mark.parametrize("kernel", KERNELS)
def test_delta_open_gates_equals_sum_of_dense_updates(kernel: int) -> None:
    content, style = pair(kernel)
    layer, x = layer_of(kernel), input_of(kernel)
    got = Branches([content, style]).delta(x, Gates(), layer)
    torch.testing.assert_close(got, dense(layer, x, content.delta() + style.delta()))


@pytest.mark.parametrize("kernel", KERNELS)
def test_delta_gates_per_sample_equals_each_update_alone(kernel: int) -> None:
    content, style = pair(kernel)
    layer, x = layer_of(kernel), input_of(kernel)
    values = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, -2.0]])
    got = Branches([content, style]).delta(x, Gates(values), layer)
    want = [
        dense(layer, x[i : i + 1], c * content.delta() + s * style.delta())
        for i, (c, s) in enumerate(values.tolist())
    ]
    torch.testing.assert_close(got, torch.cat(want))


@pytest.mark.parametrize("kernel", KERNELS)
def test_delta_folded_columns_equals_scaled_columns_of_the_dense_update(kernel: int) -> None:
    content, style = pair(kernel)
    layer, x = layer_of(kernel), input_of(kernel)
    columns = torch.randn(2, 6, generator=torch.Generator().manual_seed(3))
    branches = Branches([content, style])
    branches.fold(columns)
    axes = (1, -1) + (1,) * (2 if kernel else 0)
    scaled = columns[0].view(axes) * content.delta() + columns[1].view(axes) * style.delta()
    torch.testing.assert_close(branches.delta(x, Gates(), layer), dense(layer, x, scaled))
    teacher = branches.delta(x, Gates(learned=False), layer)
    torch.testing.assert_close(teacher, dense(layer, x, content.delta() + style.delta()))


def test_delta_one_sided_pair_ignores_the_gate_of_the_missing_branch() -> None:
    _, style = pair(0)
    layer, x = layer_of(0), input_of(0)
    got = Branches([None, style]).delta(x, Gates(torch.tensor([[1.0, 0.0]] * 3)), layer)
    assert torch.count_nonzero(got) == 0


def test_fold_gradient_equals_finite_difference() -> None:
    content, style = pair(0)
    layer, x = layer_of(0).double(), input_of(0).double()
    branches = Branches(
        [LoraFactors(f.down.double(), f.up.double(), f.alpha) for f in (content, style)]
    )

    def loss(columns: torch.Tensor) -> torch.Tensor:
        branches.fold(columns)
        return branches.delta(x, Gates(), layer).square().sum()

    assert torch.autograd.gradcheck(loss, torch.rand(2, 6, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize("fold_first", [True, False])
def test_to_a_layers_dtype_folded_columns_go_along(fold_first: bool) -> None:
    content, style = pair(0)
    layer, x = layer_of(0), input_of(0)
    columns = torch.randn(2, 6, generator=torch.Generator().manual_seed(3))
    wanted, branches = Branches([content, style]), Branches([content, style])
    wanted.fold(columns)
    if fold_first:
        branches.fold(columns)
    branches.to(torch.device("cpu"), torch.bfloat16)
    if not fold_first:
        branches.fold(columns)
    got = branches.delta(x.bfloat16(), Gates(), layer)
    assert got.dtype == torch.bfloat16 and branches.down.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), wanted.delta(x, Gates(), layer), rtol=0.05, atol=0.05)


def test_gates_of_some_samples_keeps_their_rows() -> None:
    gates = Gates(torch.eye(3), learned=False).of([2])
    assert gates.values is not None
    assert gates.values.tolist() == [[0.0, 0.0, 1.0]]
    assert gates.learned is False
