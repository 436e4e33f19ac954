"""Low-rank approximations against torch.linalg.svd of the dense updates."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ziplora_core.lora.factors import LoraFactors
from ziplora_core.lora.svd import (
    RESIZE_METHODS,
    approximate_dense,
    overall_error,
    randomised_svd,
    resized,
    truncate,
)

from .factors import NoFloat64, random_factors

KERNELS = [0, 3]


def dense(factors: LoraFactors) -> Tensor:
    """The update as a float64 matrix `(out, in·k)`."""
    up, down = factors.up.double().flatten(1), factors.down.double().flatten(1)
    return factors.scale * up @ down


def optimal_error(matrix: Tensor, rank: int) -> float:
    s = torch.linalg.svdvals(matrix.double())
    return float(s[rank:].norm() / s.norm())


def with_spectrum(s: Tensor, *shape: int, seed: int = 0) -> Tensor:
    """A float32 matrix `shape` whose singular values are `s`."""
    rng = torch.Generator().manual_seed(seed)
    u, v = (torch.linalg.qr(torch.randn(n, len(s), generator=rng).double()).Q for n in shape)
    return ((u * s) @ v.T).float()


def decaying_factors(kernel: int = 0, rank: int = 12, seed: int = 3) -> LoraFactors:
    """Factors whose directions fall off, as a trained LoRA's do; alpha is negative."""
    factors = random_factors(rank, 40, 30, kernel, alpha=-2.0 * rank, seed=seed)
    fall = torch.logspace(0, -2, rank).view(-1, *(1,) * (factors.down.ndim - 1))
    return LoraFactors(factors.down * fall, factors.up, factors.alpha)


def spectra(width: int) -> dict[str, Tensor]:
    i = torch.arange(1, width + 1).double()
    return {"1/i": 1 / i, "1/√i": i**-0.5, "exponential": torch.exp(-i / 20)}


def matrices(*shape: int) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(5)
    found = {name: with_spectrum(s, *shape) for name, s in spectra(min(shape)).items()}
    found["Gaussian"] = torch.randn(*shape, generator=rng)
    low_rank = with_spectrum(torch.ones(20).double(), *shape)
    found["low rank + noise"] = low_rank + 1e-3 * torch.randn(*shape, generator=rng)
    return found


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("rank", [1, 3, 5, 7])
def test_truncate_equals_the_optimal_approximation(kernel: int, rank: int) -> None:
    factors = random_factors(8, 40, 30, kernel, alpha=-3.0)
    u, s, vh = torch.linalg.svd(dense(factors), full_matrices=False)
    reduced = truncate(factors, rank)
    assert reduced.factors.rank == rank
    assert reduced.factors.down.shape[1:] == factors.down.shape[1:]
    best = (u[:, :rank] * s[:rank]) @ vh[:rank]
    torch.testing.assert_close(dense(reduced.factors), best, rtol=1e-4, atol=1e-4)
    assert overall_error([reduced]) == pytest.approx(optimal_error(dense(factors), rank), abs=1e-9)


def test_truncate_full_rank_changes_nothing() -> None:
    factors = random_factors(4)
    reduced = truncate(factors, 9)
    assert reduced.factors is factors and reduced.lost == 0.0
    assert reduced.total == pytest.approx(float(dense(factors).square().sum()))


def test_truncate_module_narrower_than_the_rank_keeps_all_it_has() -> None:
    factors = random_factors(16, width=6, height=5)
    reduced = truncate(factors, 9)
    assert reduced.factors.rank == 5
    torch.testing.assert_close(dense(reduced.factors), dense(factors), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["energy", "frobenius"])
@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("kernel", KERNELS)
def test_resized_keeps_the_smallest_rank_that_reaches_the_threshold(
    method: str, threshold: float, kernel: int
) -> None:
    modules = {"a": decaying_factors(kernel, 12), "b": decaying_factors(kernel, 5, seed=4)}
    parts = resized(modules, method, 0, threshold)
    lost = total = 0.0
    for name, factors in modules.items():
        s = torch.linalg.svdvals(dense(factors))[: factors.rank]
        kept = s.square() if method == "energy" else s
        shares = [
            float(kept[:r].sum() / kept.sum() if method == "energy" else s[:r].norm() / s.norm())
            for r in range(1, factors.rank + 1)
        ]
        want = next(r for r, share in enumerate(shares, 1) if share >= threshold - 1e-12)
        assert parts[name].factors.rank == want
        difference = dense(parts[name].factors) - dense(factors)
        assert float(difference.norm()) == pytest.approx(float(s[want:].norm()), abs=1e-4)
        lost, total = lost + float(s[want:].square().sum()), total + float(s.square().sum())
    assert overall_error(parts.values()) == pytest.approx((lost / total) ** 0.5, abs=1e-7)


def test_resized_frobenius_is_energy_at_the_squared_threshold() -> None:
    """kohya's sv_fro compares norms, so 0.9 keeps 81 % of the squared norm."""
    modules = {"a": decaying_factors()}
    ranks = [
        resized(modules, method, 0, threshold)["a"].factors.rank
        for method, threshold in (("frobenius", 0.9), ("energy", 0.81), ("energy", 0.9))
    ]
    assert ranks[0] == ranks[1] < ranks[2]


@pytest.mark.parametrize("method", RESIZE_METHODS)
def test_resized_rank_caps_every_method_and_leaves_smaller_modules(method: str) -> None:
    modules = {"wide": decaying_factors(rank=12), "narrow": decaying_factors(rank=2)}
    parts = resized(modules, method, 3, 1.0)
    assert {name: part.factors.rank for name, part in parts.items()} == {"wide": 3, "narrow": 2}
    assert parts["narrow"].lost == 0.0
    assert overall_error([parts["wide"]]) == pytest.approx(
        optimal_error(dense(modules["wide"]), 3), abs=1e-9
    )


def test_resized_threshold_one_drops_directions_that_are_not_there() -> None:
    three = random_factors(3, 40, 30)
    doubled = LoraFactors(torch.cat([three.down] * 2), torch.cat([three.up] * 2, dim=1))
    part = resized({"a": doubled}, "energy", 0, 1.0)["a"]
    assert part.factors.rank == 3
    torch.testing.assert_close(dense(part.factors), dense(doubled), rtol=1e-4, atol=1e-4)


def test_resized_zero_module_keeps_one_direction() -> None:
    zero = LoraFactors(torch.randn(4, 6), torch.zeros(5, 4))
    part = resized({"a": zero}, "energy", 0, 0.9)["a"]
    assert part.factors.rank == 1 and not dense(part.factors).any()
    assert overall_error([part]) == 0.0


@pytest.mark.parametrize("rank", [4, 32])
@pytest.mark.parametrize("shape", [(320, 320), (480, 256)])
def test_randomised_svd_error_is_within_a_percent_of_the_optimal(
    shape: tuple[int, int], rank: int
) -> None:
    for name, matrix in matrices(*shape).items():
        u, s, vh = (x.double() for x in randomised_svd(matrix, rank, torch.Generator()))
        error = float((matrix - (u * s) @ vh).norm() / matrix.norm())
        assert error <= 1.01 * optimal_error(matrix, rank), name
        torch.testing.assert_close(u.T @ u, torch.eye(rank).double(), rtol=0, atol=1e-4)
        torch.testing.assert_close(vh @ vh.T, torch.eye(rank).double(), rtol=0, atol=1e-4)


def test_randomised_svd_of_low_rank_finds_its_singular_values() -> None:
    s = torch.tensor([5.0, 3.0, 1.0, 0.01]).double()
    _, found, _ = randomised_svd(with_spectrum(s, 300, 200), 4, torch.Generator())
    torch.testing.assert_close(found.double(), s, rtol=1e-4, atol=1e-6)


def test_randomised_svd_small_matrix_is_exact() -> None:
    matrix = torch.randn(20, 50)
    u, s, vh = randomised_svd(matrix, 30, torch.Generator())
    assert s.shape == (20,)
    torch.testing.assert_close(s, torch.linalg.svdvals(matrix))
    torch.testing.assert_close((u * s) @ vh, matrix, rtol=1e-4, atol=1e-4)


def test_randomised_svd_same_generator_gives_the_same_bits() -> None:
    matrix = torch.randn(200, 200)
    runs = [randomised_svd(matrix, 8, torch.Generator().manual_seed(1)) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.parametrize("shape", [(160, 200), (120, 40, 3, 3), (64, 300, 1, 1)])
def test_approximate_dense_is_within_a_percent_of_the_optimal(shape: tuple[int, ...]) -> None:
    out, inner = shape[0], torch.Size(shape[1:]).numel()
    for name, matrix in matrices(out, inner).items():
        part = approximate_dense(matrix.reshape(shape), 8, torch.Generator())
        assert part.factors.delta().shape == shape
        error = float((dense(part.factors) - matrix).norm() / matrix.norm())
        assert error <= 1.01 * optimal_error(matrix, 8), name
        assert overall_error([part]) == pytest.approx(error, rel=1e-3)


def test_approximate_dense_splits_the_singular_values_evenly() -> None:
    factors = approximate_dense(torch.randn(30, 40), 6, torch.Generator()).factors
    torch.testing.assert_close(factors.up.norm(dim=0), factors.down.norm(dim=1))


@pytest.mark.parametrize("shape", [(160, 200), (30, 4, 3, 3)], ids=["randomised", "exact"])
def test_approximate_dense_needs_no_float64_and_measures_as_with_it(shape: tuple[int, ...]) -> None:
    delta = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with NoFloat64():
        part = approximate_dense(delta, 8, torch.Generator())
    matrix = delta.flatten(1).double()
    lost = (dense(part.factors).double() - matrix).square().sum()
    assert part.total == pytest.approx(float(matrix.square().sum()), rel=1e-6)
    assert part.lost == pytest.approx(float(lost), rel=1e-4)
