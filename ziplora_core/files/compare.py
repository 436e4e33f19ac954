"""Comparison of stored factors with the factors that were to be stored."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..lora.factors import LoraFactors

_ENOUGH = 1e-4
"""Smallest ratio of a square to its terms' bound at which float32 gives two digits of it."""
_LARGE, _PROBES = 2**16, 16
"""Elements of both factors above which random probes replace Gram matrices; number of probes."""
_RANGE = (1e-9, 1e9)
"""Range of norms in which neither squares nor squared rounding errors leave float32's range."""


def all_finite(tensor: Tensor) -> bool:
    """Return whether a nonempty tensor holds neither NaN nor infinity."""
    low, high = tensor.aminmax()  # one pass without a copy; a NaN makes both NaN
    return math.isfinite(float(low) + float(high))


def relative_error(got: LoraFactors, want: LoraFactors) -> float:
    """Compute ‖delta_got − delta_want‖_F / ‖delta_want‖_F of factors of equal shapes.

    The error has two digits. For large factors, it is estimated by random probes, to a few percent.

    Both updates get the scale of `got`; the rest of `want`'s scale is folded into its factors as
    the writer does: delta_want = B A and delta_got = (B + X)(A + Y). Where X and Y are rounding
    errors, nothing large cancels in the products, and float32 is enough for them. Elsewhere (the
    factors share an update but not its layout, or BA is almost zero), float64 is used.

    Returns:
        The error; infinity where it is too large to compute, 1 for any update in the place of zero.
    """
    fold = want.scale / got.scale
    root = abs(fold) ** 0.5
    a, y = _meant_and_off(want.down, got.down, root)
    b, x = _meant_and_off(want.up, got.up, math.copysign(root, fold))
    measure = _probed if b.numel() + a.numel() > _LARGE else _squares
    error, total, sure = measure(b.float(), x.float(), a.float(), y.float())
    if not sure:
        error, total, _ = _squares(b.double(), x.double(), a.double(), y.double())
    if not math.isfinite(error):
        return math.inf
    return (max(error, 0.0) / total) ** 0.5 if total > 0 else float(error > 0)


def _meant_and_off(want: Tensor, got: Tensor, root: float) -> tuple[Tensor, Tensor]:
    """Return root · want and got − root · want, as matrices."""
    want, got = want.flatten(1), got.flatten(1)
    if root != 1:  # the writer rounds this product, which counts as an error, too
        want = root * want.double()
    return want, got - want


def _probed(b: Tensor, x: Tensor, a: Tensor, y: Tensor) -> tuple[float, float, bool]:
    """Estimate ‖E‖² and ‖BA‖² of `_squares`, both times the number of probes, and their validity.

    The estimates are ‖EΩ‖² and ‖BAΩ‖² for random signs Ω (Hutchinson 1989). Their relative spread
    is √(2 / probes / effective rank), and they cost a sixteenth.
    """
    rng = torch.Generator().manual_seed(0)
    probes = 2.0 * torch.randint(2, (a.shape[1], _PROBES), generator=rng) - 1
    aw, yw = a @ probes, y @ probes
    meant, off = b @ aw, torch.addmm(x @ (aw + yw), b, yw)
    (error, error_terms), (total, total_terms) = (
        (float(product.double().square().sum()), float(bound) ** 2)
        for product, bound in (
            (off, b.norm() * yw.norm() + x.norm() * aw.norm()),
            (meant, b.norm() * aw.norm()),
        )
    )
    sure = error >= _ENOUGH * error_terms and total >= _ENOUGH * total_terms
    sizes = (float(b.norm()), float(a.norm()))
    return error, total, sure and all(_RANGE[0] < size < _RANGE[1] for size in sizes)


def _squares(b: Tensor, x: Tensor, a: Tensor, y: Tensor) -> tuple[float, float, bool]:
    """Compute ‖E‖² and ‖BA‖² with E = (B + X)(A + Y) − BA, and whether their digits are valid.

        ‖E‖² = ⟨XᵀX, AAᵀ + 2 AYᵀ + YYᵀ⟩ + 2 ⟨XᵀB, AYᵀ + YYᵀ⟩ + ⟨BᵀB, YYᵀ⟩,   ‖BA‖² = ⟨BᵀB, AAᵀ⟩

    The rounding error of ‖BA‖² = ‖Σ_i b_i a_iᵀ‖² is a few epsilons of (Σ_i ‖b_i‖ ‖a_i‖)², and
    likewise for ‖E‖².
    """
    bb, xb, xx = (product.double() for product in (b.T @ b, x.T @ b, x.T @ x))
    aa, ay, yy = (product.double() for product in (a @ a.T, a @ y.T, y @ y.T))
    error = float((xx * (aa + 2 * ay + yy) + 2 * xb * (ay + yy) + bb * yy).sum())
    total = float((bb * aa).sum())
    nb, nx, na, ny = (gram.diagonal().sqrt() for gram in (bb, xx, aa, yy))
    error_terms = float((nx * na + nb * ny + nx * ny).sum()) ** 2
    total_terms = float((nb * na).sum()) ** 2
    sure = error >= _ENOUGH * error_terms and total >= _ENOUGH * total_terms
    return error, total, sure and all(_RANGE[0] < float(n.max()) < _RANGE[1] for n in (nb, na))
