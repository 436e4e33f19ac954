"""The bounded least squares of one layer against SciPy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import lsq_linear
from torch import Tensor

from ziplora_core.ziplora.layer_least_squares import UNBOUNDED, minimise_within

N = 60


def ill_conditioned(seed: int) -> tuple[Tensor, Tensor]:
    """A least-squares problem whose unbounded coefficients reach far beyond 2."""
    rng = torch.Generator().manual_seed(seed)
    scales = torch.logspace(0, -2, N, dtype=torch.float64)
    matrix = torch.randn(80, N, generator=rng, dtype=torch.float64) * scales
    return matrix, 3 * torch.randn(80, generator=rng, dtype=torch.float64)


@pytest.mark.parametrize("bounds", [(0.0, 2.0), (0.5, 0.75), (-math.inf, 1.0), (0.0, math.inf)])
@pytest.mark.parametrize("seed", range(4))
def test_bounded_minimum_is_scipys(bounds: tuple[float, float], seed: int) -> None:
    matrix, target = ill_conditioned(seed)
    ours = minimise_within(matrix.T @ matrix, matrix.T @ target, bounds)
    theirs = lsq_linear(matrix.numpy(), target.numpy(), bounds, tol=1e-14)
    assert ours is not None
    np.testing.assert_allclose(ours.numpy(), theirs.x, atol=1e-6)


def test_without_bounds_it_is_numpys_least_squares() -> None:
    matrix, target = ill_conditioned(0)
    ours = minimise_within(matrix.T @ matrix, matrix.T @ target, UNBOUNDED)
    theirs, *_ = np.linalg.lstsq(matrix.numpy(), target.numpy(), rcond=None)
    assert ours is not None and np.abs(theirs).max() > 20
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-6)


def test_a_singular_problem_has_no_minimum() -> None:
    assert minimise_within(torch.zeros(3, 3), torch.ones(3), (0.0, 2.0)) is None
