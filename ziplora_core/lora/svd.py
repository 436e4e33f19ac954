"""Linear algebra on low-rank updates: norms, SVDs and best approximations of lower rank."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .factors import LoraFactors

SVD = tuple[Tensor, Tensor, Tensor]
"""u `(m, r)`, singular values `(r,)` in descending order, vh `(r, n)`."""

RESIZE_METHODS = ("rank", "energy", "frobenius")


@dataclass(frozen=True)
class Approximation:
    """A low-rank approximation of an update, with its error.

    Args:
        factors: the factors of the approximation delta_r.
        lost: ‖delta − delta_r‖_F².
        total: ‖delta‖_F².
    """

    factors: LoraFactors
    lost: float
    total: float


def overall_error(parts: Iterable[Approximation]) -> float:
    """Compute ‖delta − delta_r‖_F / ‖delta‖_F over all modules together."""
    parts = list(parts)
    lost, total = sum(part.lost for part in parts), sum(part.total for part in parts)
    return (lost / total) ** 0.5 if total > 0 else 0.0


def squared_norm(delta: Tensor) -> float:
    """Compute ‖delta‖_F² of a dense update `(out, in, *k)` from the norms of its rows.

    This is as exact as one sum in float64, which not every device supports.
    """
    rows = torch.linalg.vector_norm(delta.flatten(1), dim=1)
    return float(torch.linalg.vector_norm(rows)) ** 2


def inner_product(
    left: LoraFactors, right: LoraFactors, dtype: torch.dtype = torch.float64
) -> float:
    """Compute ⟨delta_left, delta_right⟩_F = tr(down_lᵀ up_lᵀ up_r down_r).

    Args:
        left, right: updates of one layer.
        dtype: that of the two products of factors; float32 takes a third of the time, and has
            errors of about 1e-6 ‖delta_left‖ ‖delta_right‖.
    """
    ups = left.up.flatten(1).to(dtype).T @ right.up.flatten(1).to(dtype)
    downs = left.down.flatten(1).to(dtype) @ right.down.flatten(1).to(dtype).T
    return left.scale * right.scale * float((ups.double() * downs.double()).sum())


def svd_of_factors(factors: LoraFactors) -> SVD:
    """Compute the SVD of an update in float64: QR of both factors, SVD of the small core.

    scale · up = Q_u R_u,   downᵀ = Q_d R_d,   R_u R_dᵀ = U S Vᵀ   →   (Q_u U) S (Vᵀ Q_dᵀ)
    """
    q_up, r_up = torch.linalg.qr(factors.scale * factors.up.flatten(1).double())  # (out, R)
    q_down, r_down = torch.linalg.qr(factors.down.flatten(1).double().T)  # (in·k, R)
    u, s, vh = torch.linalg.svd(r_up @ r_down.T, full_matrices=False)
    return q_up @ u, s, vh @ q_down.T


def drop_null(u: Tensor, s: Tensor, vh: Tensor) -> SVD:
    """Drop directions that are only rounding error, as in a file with more rank than it uses.

    The factors are float32, which limits how exactly their span is known. One direction always
    stays.
    """
    alive = s > torch.finfo(torch.float32).eps * max(len(u), vh.shape[1]) * s[0]
    alive[0] = True
    return u[:, alive], s[alive], vh[alive]


def randomised_svd(
    matrix: Tensor, rank: int, rng: torch.Generator, oversample: int = 16, power: int = 4
) -> SVD:
    """Compute the `rank` largest singular values and their vectors of a dense matrix.

    Subspace iteration (Halko, Martinsson and Tropp 2011, arXiv:0909.4061, Alg. 4.4 and 5.1): Q
    spans (A Aᵀ)^power A Ω, orthonormalised after every product, then SVD of the small Qᵀ A. Where
    Qᵀ A would not be much smaller than A, the exact SVD is used instead.

    Args:
        matrix: A `(m, n)`.
        rank: number of singular values to keep; capped at min(m, n).
        rng: CPU generator that draws Ω `(n, rank + oversample)`.
        oversample: number of columns of Ω beyond `rank`.
        power: number of iterations; a flat spectrum needs some.
    """
    columns = rank + oversample
    if 2 * columns >= min(matrix.shape):
        u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    else:
        omega = torch.randn(matrix.shape[1], columns, generator=rng).to(matrix)
        q = _orthonormal(matrix @ omega)
        for _ in range(power):
            q = _orthonormal(matrix @ _orthonormal(matrix.T @ q))
        u, s, vh = torch.linalg.svd(q.T @ matrix, full_matrices=False)
        u = q @ u
    return u[:, :rank], s[:rank], vh[:rank]


def approximate_dense(delta: Tensor, rank: int, rng: torch.Generator) -> Approximation:
    """Approximate a dense update `(out, in, *k)` by factors, to within a percent of the optimum."""
    matrix = delta.flatten(1)  # (out, in·k)
    u, s, vh = randomised_svd(matrix, rank, rng)
    lost = squared_norm(matrix - (u * s) @ vh)
    return Approximation(balanced((u, s, vh), delta.shape), lost, squared_norm(matrix))


def approximate(factors: LoraFactors, choose: Callable[[Tensor], int]) -> Approximation:
    """Compute the closest update of lower rank (Eckart-Young): its first r singular directions.

    Args:
        factors: the update.
        choose: returns r, given the singular values; a module narrower than r keeps its full rank.
    """
    u, s, vh = svd_of_factors(factors)
    rank = choose(s)
    squares = s.square()
    shape = (factors.up.shape[0], *factors.down.shape[1:])
    kept = balanced((u[:, :rank], s[:rank], vh[:rank]), shape)
    return Approximation(kept, float(squares[rank:].sum()), float(squares.sum()))


def truncate(factors: LoraFactors, rank: int) -> Approximation:
    """Reduce an update to at most `rank`; an update of no higher rank is returned unchanged."""
    if factors.rank <= rank:
        return Approximation(factors, 0.0, inner_product(factors, factors))
    return approximate(factors, lambda s: rank)


def cut_by_activation(
    factors: LoraFactors, rank: int, seen: Tensor, ridge: float = 0.0
) -> tuple[Approximation, float]:
    """Reduce an update to the directions that matter most for its layer's inputs x.

        min ‖(delta − delta_r) S^½‖_F  →  delta_r = U_r U_rᵀ delta,    S = E[x xᵀ]
        scale · up = Q R,    down S downᵀ = L Lᵀ,    R L = W Σ Vᵀ,     U = Q W

    Args:
        factors: the update.
        rank: r.
        seen: down S downᵀ `(R, R)`, float64.
        ridge: weight of isotropic inputs (S ∝ I) beside the inputs seen, for layers that saw few.

    Returns:
        The approximation, whose `lost` and `total` are squares of ‖· S^½‖_F, and the `lost` of the
        plain SVD in the same measure.
    """
    up, down = factors.scale * factors.up.flatten(1).double(), factors.down.flatten(1).double()
    flat = down @ down.T
    values, vectors = torch.linalg.eigh(seen + ridge * seen.trace() / flat.trace() * flat)
    q, r = torch.linalg.qr(up)
    directions = q @ torch.linalg.svd(r @ (vectors * values.clamp_min(0).sqrt()))[0][:, :rank]
    gram = up.T @ up
    total = float((gram * seen).sum())

    def lost(u: Tensor) -> float:
        part = u.T @ up
        return max(total - float((part.T @ part * seen).sum()), 0.0)

    kept = LoraFactors((directions.T @ up @ down).view(-1, *factors.down.shape[1:]), directions)
    plain = lost(svd_of_factors(factors)[0][:, :rank])
    return Approximation(approximate(kept, len).factors, lost(directions), total), plain


def smallest_rank(s: Tensor, share: float) -> int:
    """Return the smallest r ≥ 1 with σ_1² + … + σ_r² ≥ share · ‖σ‖²."""
    energy = s.square().cumsum(0)
    return int(torch.searchsorted(energy, share * energy[-1])) + 1


def resized(
    modules: Mapping[str, LoraFactors], method: str, rank: int, threshold: float
) -> dict[str, Approximation]:
    """Reduce the rank of every module of a LoRA.

    Args:
        modules: factors by module name.
        method: `rank` reduces to `rank`; `energy` to the smallest rank that keeps the share
            `threshold` of ‖delta‖_F²; `frobenius` likewise for ‖delta‖_F (sv_fro in
            kohya-ss/sd-scripts, resize_lora.py).
        rank: largest rank; 0 for no limit.
        threshold: share from 0 (rank 1) to 1 (all nonzero directions).
    """
    share = threshold**2 if method == "frobenius" else threshold

    def choose(s: Tensor) -> int:
        fitting = smallest_rank(s, share)
        return min(fitting, rank) if rank else fitting

    if method == "rank":
        return {name: truncate(factors, rank) for name, factors in modules.items()}
    return {name: approximate(factors, choose) for name, factors in modules.items()}


def balanced(svd: SVD, shape: Sequence[int]) -> LoraFactors:
    """Return factors of an update `(out, in, *k)`: up = U √S, down = √S Vᵀ, without clamping."""
    u, s, vh = svd
    root = s.sqrt()
    up = (u * root).reshape(len(u), -1, *(1,) * (len(shape) - 2))  # (out, r, *1)
    down = (root[:, None] * vh).reshape(-1, *shape[1:])  # (r, in, *k)
    return LoraFactors(down.float(), up.float())


def _orthonormal(matrix: Tensor) -> Tensor:
    return torch.linalg.qr(matrix).Q
