"""Rounding errors of a module: from the factors, against dense float64 updates."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ziplora_core.files import compare
from ziplora_core.files.compare import all_finite, relative_error
from ziplora_core.lora.factors import LoraFactors

from ..lora.factors import random_factors

DTYPES = [torch.float16, torch.bfloat16, torch.float32]


def dense(factors: LoraFactors) -> Tensor:
    """Multiply the update out in float64."""
    return factors.scale * factors.up.flatten(1).double() @ factors.down.flatten(1).double()


def dense_error(got: LoraFactors, want: LoraFactors) -> float:
    return float((dense(got) - dense(want)).norm() / dense(want).norm())


def stored(factors: LoraFactors, dtype: torch.dtype, alpha: float) -> LoraFactors:
    """Store factors as the writer does, under another alpha."""
    fold = factors.scale * factors.rank / alpha
    root = abs(fold) ** 0.5
    down, up = root * factors.down, math.copysign(root, fold) * factors.up
    return LoraFactors(down.to(dtype).float(), up.to(dtype).float(), alpha)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", [0, 3])
@pytest.mark.parametrize("alpha", [None, 3.0, -11.0])
def test_relative_error_of_rounded_factors_is_the_dense_one(
    alpha: float | None, kernel: int, dtype: torch.dtype
) -> None:
    want = random_factors(12, 40, 30, kernel, alpha)
    got = stored(want, dtype, 8.0)
    assert relative_error(got, want) == pytest.approx(dense_error(got, want), rel=1e-3)
    assert 0 < dense_error(got, want) < 1e-2


@pytest.mark.parametrize("size", [1e-30, 1e-18, 1e-12, 1.0, 1e12, 1e18, 1e30])
@pytest.mark.parametrize("of_up", [True, False])
def test_relative_error_of_tiny_and_huge_factors(size: float, of_up: bool) -> None:
    plain = random_factors(12, 40, 30)
    off = stored(plain, torch.float16, 12.0)
    want, got = (
        LoraFactors(f.down / (1 if of_up else size), f.up * (size if of_up else 1))
        for f in (plain, off)
    )
    assert relative_error(got, want) == pytest.approx(dense_error(got, want), rel=1e-3)
    both = [LoraFactors(f.down * size, f.up * size) for f in (plain, off)]
    assert relative_error(both[1], both[0]) == pytest.approx(dense_error(*both[::-1]), rel=1e-3)


def test_relative_error_of_the_same_update_in_another_layout_is_nothing() -> None:
    want = random_factors(12, 40, 30, alpha=3.0)
    turn = torch.linalg.qr(random_factors(12, 12, 12).down).Q
    got = LoraFactors(turn.T @ want.down, 0.25 * want.up @ turn)
    assert relative_error(got, want) < 1e-6


@pytest.mark.parametrize("left", [1.0, 1e-2, 1e-5])
def test_relative_error_where_the_halves_all_but_cancel(left: float) -> None:
    """BA is far smaller than its terms; rounding is not."""
    half, rest = random_factors(6, 40, 30, seed=1), random_factors(6, 40, 30, seed=2)
    down = torch.cat([half.down, half.down, rest.down])
    want = LoraFactors(down, torch.cat([half.up, -half.up, left * rest.up], dim=1))
    got = stored(want, torch.bfloat16, 18.0)
    got.up[:, 0] *= 1 + 1e-2
    assert relative_error(got, want) == pytest.approx(dense_error(got, want), rel=1e-2)


def test_relative_error_of_a_zero_module() -> None:
    want = LoraFactors(torch.randn(3, 5), torch.zeros(4, 3))
    assert relative_error(want, want) == 0
    assert relative_error(LoraFactors(want.down, torch.full((4, 3), 1e-20)), want) == 1
    empty = LoraFactors(torch.zeros(3, 5), torch.zeros(4, 3))
    assert relative_error(empty, empty) == 0
    assert relative_error(empty, random_factors(3, 5, 4)) == pytest.approx(1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_relative_error_that_cannot_be_told_is_infinite(bad: float) -> None:
    want = random_factors(3)
    got = LoraFactors(want.down.clone(), want.up)
    got.down[0, 0] = bad
    assert relative_error(got, want) == math.inf


def test_relative_error_of_exact_numbers_is_zero_and_of_a_rounded_fold_is_not() -> None:
    want = random_factors(12, 40, 30)
    assert relative_error(stored(want, torch.float32, 12.0), want) == 0
    got = stored(want, torch.float32, 7.0)
    assert 1e-9 < relative_error(got, want) < 1e-7


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_all_finite(dtype: torch.dtype, bad: float) -> None:
    limits = torch.finfo(dtype)
    for sign in (1, -1):
        assert all_finite(torch.full((100,), sign * limits.max, dtype=dtype))
    for place in (0, 57, 99):
        tensor = torch.ones(100, dtype=dtype)
        tensor[place] = bad
        assert not all_finite(tensor)
    assert not all_finite(torch.tensor([float("inf"), float("-inf")], dtype=dtype))
    assert all_finite(torch.tensor(1.0, dtype=dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("alpha", [128.0, 5.0])
def test_relative_error_of_a_large_module_is_the_dense_one_to_a_few_percent(
    dtype: torch.dtype, alpha: float
) -> None:
    want = random_factors(128, 1280, 640, alpha=alpha)
    got = stored(want, dtype, 128.0)
    assert relative_error(got, want) == pytest.approx(dense_error(got, want), rel=0.05)
    exact = stored(want, torch.float64, 128.0)
    assert relative_error(exact, want) < 1e-6


def test_relative_error_of_a_large_module_with_one_wrong_number_is_seen() -> None:
    want = random_factors(128, 1280, 640)
    got = stored(want, torch.float32, 128.0)
    got.up[3, 7] += 100.0
    assert relative_error(got, want) == pytest.approx(dense_error(got, want), rel=0.5)


def test_relative_error_of_a_large_module_whose_halves_cancel() -> None:
    half, rest = random_factors(64, 1280, 640, seed=1), random_factors(4, 1280, 640, seed=2)
    down = torch.cat([half.down, half.down, rest.down])
    want = LoraFactors(down, torch.cat([half.up, -half.up, 1e-4 * rest.up], dim=1))
    got = stored(want, torch.bfloat16, 132.0)
    assert relative_error(got, want) == pytest.approx(dense_error(got, want), rel=0.1)


def test_float32_is_enough_for_what_rounding_did() -> None:
    want = random_factors(128, 1280, 640)
    got = stored(want, torch.float16, 128.0)
    a, b = want.down, want.up
    for measure in (compare._squares, compare._probed):
        error, total, sure = measure(b, got.up - b, a, got.down - a)
        assert sure
        assert (error / total) ** 0.5 == pytest.approx(dense_error(got, want), rel=0.05)
