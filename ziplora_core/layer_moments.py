"""What one layer has to do, as a quadratic in its merger coefficients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import reduce
from torch import Tensor

from .branches import Branches
from .states import Teacher


@dataclass(frozen=True)
class Solution:
    """A layer's coefficients, and what they leave of its outputs.

    Args:
        columns: m `(2, in)`.
        error: Σ‖Σ_a delta_a (m_a ⊙ x) − y‖² / Σ‖y‖².
        direct: the same with all coefficients 1.
    """

    columns: Tensor
    error: float
    direct: float


class Moments:
    """Moments of a layer's inputs and targets, in float32.

    For input x of a token and target y, the merged LoRA adds Σ_a delta_a (m_a ⊙ x), so

        E‖Σ_a delta_a (m_a ⊙ x) − y‖² = mᵀ H m − 2 bᵀ m + E‖y‖²
        H_ab = S ⊙ K_ab,   S = E[x xᵀ],   K_ab = delta_aᵀ delta_b = down_aᵀ (up_aᵀ up_b) down_b
        b_a = E[x ⊙ (delta_aᵀ y)]

    It is convex in m = (m_c, m_s). With the single LoRAs' own inputs and y = delta_k x, k the one
    whose turn it is, this is the sum of both output errors, S = S_c + S_s: each E is a mean over
    the places of a picture and a sum over pictures, so that a large one counts as a small one does.
    Of a convolution, x is the patch `(in · taps)`; a coefficient counts for all taps of its
    channel, so their entries of H and b are summed.

    Args:
        branches: content's and style's beside the layer: the factors as it computes with them.
    """

    def __init__(self, branches: Branches) -> None:
        self.branches, self.width = branches, branches.width
        device = branches.down.device
        self.second: Tensor | None = None  # S, shared by layers that read the same input
        self.linear = torch.zeros(2, self.width, device=device)  # b
        self.energy = torch.zeros((), device=device)  # E‖y‖²
        self.drift = torch.zeros((), device=device)  # largest |merge's input − its teacher's|

    @property
    def downs(self) -> list[Tensor]:
        """View content's and style's down factors, `(rank, in · taps)`, in float32."""
        return [d.flatten(1).float() for d in self.branches.down.split(self.branches.ranks)]

    @property
    def ups(self) -> list[Tensor]:
        """View content's and style's up factors with their scale, `(out, rank)`, in float32."""
        return [u.flatten(1).float() for u in self.branches.up.split(self.branches.ranks, 1)]

    def added(self, x: Tensor, teacher: Teacher) -> Tensor:
        """Compute what a teacher's LoRAs add for tokens `(n, in · taps)`: `(n, out)`."""
        parts = zip(teacher, self.downs, self.ups, strict=True)
        return sum(gate * ((x @ down.T) @ up.T) for gate, down, up in parts if gate)  # pyright: ignore

    def add_input(self, x: Tensor, device: torch.device) -> None:
        """Count the tokens `(n, in · taps)` in S, which lives on `device`."""
        second = (x.T @ x).to(device)
        self.second = second if self.second is None else self.second.add_(second)

    def add_target(self, x: Tensor, y: Tensor) -> None:
        """Count the targets `(n, out)` of tokens `(n, in · taps)`."""
        self.energy += y.square().sum()
        for branch, (down, up) in enumerate(zip(self.downs, self.ups, strict=True)):
            products = (down * ((y @ up).T @ x)).sum(0)
            self.linear[branch] += products.view(self.width, -1).sum(1)

    def solve(self, ridge: float) -> Solution | None:
        """Minimise the quadratic + Σ_a ridge · mean(diag H_aa) · ‖m_a − 1‖².

        The mean is each LoRA's own, so that a weak one is held no more firmly than a strong one.

        Returns:
            None for a layer that never ran, saw or adds nothing, or saw what is not finite.
        """
        if self.second is None:
            return None
        hessian, right = self._hessian(), self.linear.flatten()
        each = hessian.diagonal().view(2, -1).mean(1, keepdim=True)
        each = torch.where(each > 0, each, each.mean())  # one may add nothing to what it saw
        weight = (ridge * each).expand(2, self.width).flatten()
        if not (weight > 0).all() or not (hessian.isfinite().all() and right.isfinite().all()):
            return None
        solved = _ridge_towards_one(hessian, right, weight)
        if solved is None:  # nearly singular: more digits, which not every device has
            solved = _ridge_towards_one(*(t.cpu().double() for t in (hessian, right, weight)))
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
        """H `(2 in, 2 in)`."""
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


def _ridge_towards_one(hessian: Tensor, right: Tensor, weight: Tensor) -> Tensor | None:
    """Solve (H + diag w) m = b + w; None where that cannot be factored."""
    factor, fault = torch.linalg.cholesky_ex(hessian + weight.diag())
    if fault:
        return None
    return torch.cholesky_solve((right + weight)[:, None], factor)[:, 0]
