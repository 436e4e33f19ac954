"""The least-squares problem of one layer: a quadratic in its merger coefficients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from einops import reduce
from torch import Tensor

from ..training.branches import Branches
from ..training.noisy_samples import Teacher

Bounds = tuple[float, float]
UNBOUNDED: Bounds = (-math.inf, math.inf)
_ROUNDS = 20
"""Most rounds of the active set; a clamp of the last one follows. Random problems take ten."""


@dataclass(frozen=True)
class Solution:
    """The coefficients of one layer and the relative error of its output.

    Args:
        columns: the coefficients m `(2, in)`.
        error: Σ‖Σ_a delta_a (m_a ⊙ x) − y‖² / Σ‖y‖².
        direct: the same error with all coefficients 1.
    """

    columns: Tensor
    error: float
    direct: float


class Moments:
    """The moments of a layer's inputs and targets, in float32.

    For input x of a token and target y, the merged LoRA adds Σ_a delta_a (m_a ⊙ x), so

        E‖Σ_a delta_a (m_a ⊙ x) − y‖² = mᵀ H m − 2 bᵀ m + E‖y‖²
        H_ab = S ⊙ K_ab,   S = E[x xᵀ],   K_ab = delta_aᵀ delta_b = down_aᵀ (up_aᵀ up_b) down_b
        b_a = E[x ⊙ (delta_aᵀ y)]

    It is convex in m = (m_c, m_s). With the inputs of the single LoRAs and y = delta_k x for the
    LoRA k that is drawing, this is the sum of both output errors, and S = S_c + S_s. Each E is a
    mean over the positions of a picture and a sum over pictures, so that all sizes count alike.
    For a convolution, x is the patch `(in · taps)`; a coefficient scales all taps of its channel,
    so their entries of H and b are summed.

    Args:
        branches: the content and the style branch, with the factors the layer computes with.
    """

    def __init__(self, branches: Branches) -> None:
        self.branches, self.width = branches, branches.width
        device = branches.down.device
        self.second: Tensor | None = None  # S, shared by layers that read the same input
        self.linear = torch.zeros(2, self.width, device=device)  # b
        self.energy = torch.zeros((), device=device)  # E‖y‖²
        self.drift = torch.zeros((), device=device)  # largest |merge's input − teacher's input|

    @property
    def downs(self) -> list[Tensor]:
        """View content's and style's down factors, `(rank, in · taps)`, in float32."""
        return [d.flatten(1).float() for d in self.branches.down.split(self.branches.ranks)]

    @property
    def ups(self) -> list[Tensor]:
        """View content's and style's up factors with their scale, `(out, rank)`, in float32."""
        return [u.flatten(1).float() for u in self.branches.up.split(self.branches.ranks, 1)]

    def added(self, x: Tensor, teacher: Teacher) -> Tensor:
        """Compute the output `(n, out)` of a teacher's LoRAs for tokens `(n, in · taps)`."""
        parts = zip(teacher, self.downs, self.ups, strict=True)
        return sum(gate * ((x @ down.T) @ up.T) for gate, down, up in parts if gate)  # pyright: ignore

    def add_input(self, x: Tensor, device: torch.device) -> None:
        """Add tokens `(n, in · taps)` to S, which is kept on `device`."""
        second = (x.T @ x).to(device)
        self.second = second if self.second is None else self.second.add_(second)

    def add_target(self, x: Tensor, y: Tensor) -> None:
        """Add the targets `(n, out)` of tokens `(n, in · taps)` to b and E‖y‖²."""
        self.energy += y.square().sum()
        for branch, (down, up) in enumerate(zip(self.downs, self.ups, strict=True)):
            products = (down * ((y @ up).T @ x)).sum(0)
            self.linear[branch] += products.view(self.width, -1).sum(1)

    def solve(self, ridge: float, bounds: Bounds = UNBOUNDED) -> Solution | None:
        """Minimise the quadratic plus Σ_a ridge · mean(diag H_aa) · ‖m_a − 1‖² within bounds.

        The mean is taken per LoRA, so that a weak one is held no more firmly than a strong one.

        Args:
            ridge: the relative weight of the second term.
            bounds: the least and the largest coefficient.

        Returns:
            the solution; None for a layer without inputs, with a zero update, or with numbers that
            are not finite.
        """
        if self.second is None:
            return None
        hessian, right = self._hessian(), self.linear.flatten()
        each = hessian.diagonal().view(2, -1).mean(1, keepdim=True)
        each = torch.where(each > 0, each, each.mean())  # one update may be zero on these inputs
        weight = (ridge * each).expand(2, self.width).flatten()
        if not (weight > 0).all() or not (hessian.isfinite().all() and right.isfinite().all()):
            return None
        system, pull = hessian.clone(), right + weight
        system.diagonal().add_(weight)
        solved = minimise_within(system, pull, bounds)
        if solved is None:  # nearly singular: float64, which not every device has
            solved = minimise_within(system.cpu().double(), pull.cpu().double(), bounds)
        if solved is None:
            return None
        solved = solved.to(right)
        ones = torch.ones_like(solved)
        error, direct = (
            float((m @ hessian @ m - 2 * right @ m + self.energy) / self.energy)
            for m in (solved, ones)
        )
        return Solution(solved.view(2, -1), error, direct)

    def _hessian(self) -> Tensor:
        """Compute H `(2 in, 2 in)`."""
        assert self.second is not None
        n, downs, ups = self.width, self.downs, self.ups
        second = self.second.to(self.linear.device)
        hessian = second.new_empty(2, n, 2, n)
        for a, b in ((0, 0), (0, 1), (1, 1)):
            block = (downs[a].T @ (ups[a].T @ ups[b]) @ downs[b]).mul_(second)
            if len(block) > n:
                block = reduce(block, "(a s) (b t) -> a b", "sum", a=n, b=n)
            hessian[a, :, b] = block
            hessian[b, :, a] = block.T
        return hessian.view(2 * n, 2 * n)


def minimise_within(hessian: Tensor, right: Tensor, bounds: Bounds) -> Tensor | None:
    """Minimise ½ mᵀ H m − bᵀ m over low ≤ m ≤ high; None where a Cholesky factorisation fails.

    By the primal-dual active set method (Hintermüller, Ito & Kunisch 2002,
    doi:10.1137/S1052623401383558): entries beyond a bound are held there, and let go when the force
    b − H m no longer pushes them out, until the same entries are held twice.

    Args:
        hessian: H `(n, n)`, positive definite.
        right: b `(n,)`.
        bounds: low and high, which may be infinite.
    """
    low, high = bounds
    held = torch.zeros_like(right, dtype=torch.bool)
    at = torch.zeros_like(right)
    m = right
    for _ in range(_ROUNDS):
        free = ~held
        rest = hessian * (free[:, None] & free)
        rest.diagonal().add_(held.to(right))
        factor, fault = torch.linalg.cholesky_ex(rest)
        if fault:
            return None
        wanted = torch.where(held, at, right - hessian @ at)
        m = torch.cholesky_solve(wanted[:, None], factor)[:, 0]
        pushed = m + torch.where(held, right - hessian @ m, 0.0) / hessian.diagonal()
        before, held = held, (pushed < low) | (pushed > high)
        if torch.equal(before, held):
            break
        at = torch.where(held, pushed.clamp(low, high), 0.0)
    return m.clamp(low, high)
