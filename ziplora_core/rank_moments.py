"""What two LoRAs see of a layer's inputs, in the coordinates of their own ranks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .branches import Branches
from .lora import LoraFactors
from .low_rank import balanced, living, svd_of_factors
from .observation import places, tokens
from .pairing import ModulePair

CONTENT, STYLE, JOINT = range(3)
RIDGE = 0.1
"""Relative to the mean of G's diagonal. With 0.01 a layer of trained LoRAs becomes up to three
times as strong as their sum, in directions that hardly any token excites; 0.1 is also what layers
that see few tokens need (keys and values of the cross-attention)."""


class RankMoments:
    """Second moments of one layer in rank space.

    For input x of a token, z = down x `(R,)` with down = [down_c ; down_s], R = r_c + r_s:

        G = Σ_k E_k[z zᵀ] + γ E_joint[z zᵀ],    Q_k = E_k[z_k zᵀ] + γ E_joint[z_k zᵀ]

    E_k is the mean over the tokens that LoRA k alone sees at its own prompt, E_joint over those
    that both together see at a joint one; z_k are LoRA k's own entries of z, and Q_k its rows of
    Q. The factors are balanced first (upᵀ up = down downᵀ), so that nothing depends on how a file
    splits an update in two.

    Args:
        pair: the factors; one half may be missing.
        joint_weight: γ.

    `branches` are those of the balanced factors: the model's, while it is looked at.
    """

    def __init__(self, pair: ModulePair, joint_weight: float = 1.0) -> None:
        self.pair = ModulePair(*map(_balanced, pair.factors))
        self.joint_weight = joint_weight
        self.branches = Branches(self.pair.factors)
        content, style = self.branches.ranks
        self.rows = slice(0, content), slice(content, content + style), slice(0, content + style)
        self.gram = torch.zeros(content + style, content + style)  # G
        self.cross = torch.zeros_like(self.gram)  # Q
        self.own = torch.zeros_like(self.gram)  # Σ_k E_k[z_k z_kᵀ] + γ E_joint[z zᵀ]

    @property
    def down(self) -> Tensor:
        """[down_c ; down_s] `(R, in, *k)`, wherever the model is."""
        return self.branches.down

    def add(self, x: Tensor, concept: int, layer: nn.Module) -> None:
        """Count a layer's input while CONTENT, STYLE or JOINT is drawn; every call counts alike."""
        z = self._coordinates(x, layer)
        moment = z.T @ z * ((self.joint_weight if concept == JOINT else 1.0) / len(z))
        if self.gram.device != z.device:
            self.gram, self.cross, self.own = (m.to(z.device) for m in self._sums)
        rows = self.rows[concept]
        self.gram += moment
        self.cross[rows] += moment[rows]
        self.own[rows, rows] += moment[rows, rows]

    def router(self, ridge: float = RIDGE) -> Tensor | None:
        """Solve for what each direction passes on to the others, float64, CPU.

            Router = (Q + λ I)(G + λ I)⁻¹,    λ = ridge · mean(diag G)

        up Router down is the LoRA closest to each single one on its own tokens, and to their sum on
        joint ones (SSR-Merge, arXiv:2606.10617); the ridge pulls to the identity, the plain sum,
        rather than to zero, so that directions no token has excited stay.

        Returns:
            `(R, R)`; None for a layer that never ran, or saw what is not finite.
        """
        if not self.usable:
            return None
        gram, cross, _ = (m.cpu().double() for m in self._sums)
        weight = ridge * gram.diagonal().mean()
        eye = weight * torch.eye(len(gram), dtype=gram.dtype)
        router, info = torch.linalg.solve_ex(gram + eye, cross + eye, left=False)
        return None if info or not router.isfinite().all() else router

    def reproduced(self, router: Tensor) -> float:
        """Find how much of what the LoRAs add where they were looked at a merge adds, too.

            1 − Σ_k E_k‖up Router z − up_k z_k‖² / Σ_k E_k‖up_k z_k‖²

        with the joint tokens counted in. Where two unrelated LoRAs of one strength see the same,
        their sum reaches 0, their average 0.5, and nothing more than that.
        """
        gram, cross, own = (m.cpu().double() for m in self._sums)
        up = torch.cat([f.up.flatten(1) for f in self.pair.factors if f], 1).double()
        product = up.T @ up
        error = own - 2 * router @ cross.T + router @ gram @ router.T
        return 1 - float((product * error).sum() / (product * own).sum())

    def seen_by(self, factors: LoraFactors) -> Tensor:
        """Find E[u uᵀ] of u = down' x for an update made of these two, `(r, r)`, float64, CPU.

        Whatever a method does, its down' is some C · [down_c ; down_s]: E[u uᵀ] = C G Cᵀ.
        """
        down, own = (d.flatten(1).cpu().double() for d in (self.down, factors.down))
        inverse = torch.linalg.pinv(down @ down.T, rtol=1e-10, hermitian=True)
        change = own @ down.T @ inverse
        return change @ self.gram.cpu().double() @ change.T

    @property
    def usable(self) -> bool:
        """Whether anything was seen, and all of it finite."""
        return bool(self.gram.isfinite().all() and self.gram.diagonal().mean() > 0)

    @property
    def _sums(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.gram, self.cross, self.own

    def _coordinates(self, x: Tensor, layer: nn.Module) -> Tensor:
        """z of every token, `(token, R)`."""
        if isinstance(layer, nn.Conv2d):
            z = F.conv2d(x.float(), self.down, None, layer.stride, layer.padding, layer.dilation)
            return places(z).flatten(0, 1)
        return tokens(x, layer).flatten(0, 1) @ self.down.T


def _balanced(factors: LoraFactors | None) -> LoraFactors | None:
    if factors is None:
        return None
    shape = (factors.up.shape[0], *factors.down.shape[1:])
    return balanced(living(*svd_of_factors(factors)), shape)


class RankCalibration:
    """Collects the moments of all layers while pictures are drawn.

    Args:
        pairs: by the model's name for the module.
        joint_weight: γ, what a joint picture counts beside one of each.
    """

    def __init__(self, pairs: Mapping[str, ModulePair], joint_weight: float = 1.0) -> None:
        self.moments = {name: RankMoments(pair, joint_weight) for name, pair in pairs.items()}
        self.branches = {name: moments.branches for name, moments in self.moments.items()}
        self.concept = CONTENT

    def observe(self, name: str, x: Tensor, _out: Tensor, layer: nn.Module) -> None:
        """Count a layer's input for the concept whose turn it is; see `observation.Observer`."""
        self.moments[name].add(x, self.concept, layer)
