"""Second moments of layer inputs in rank space, the coordinates of two LoRAs' own ranks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..lora.factors import LoraFactors
from ..lora.pair import ModulePair
from ..lora.svd import balanced, drop_null, svd_of_factors
from ..training.activations import places, tokens
from ..training.branches import CONVOLUTIONS, Branches, convolution

CONTENT, STYLE, JOINT = range(3)
RIDGE = 0.1
"""Ridge relative to the mean of G's diagonal. With 0.01, a layer of trained LoRAs becomes up to
three times as strong as their sum, in directions that hardly any token excites. Layers that receive
few tokens (keys and values of the cross-attention) need 0.1, too."""


class RankMoments:
    """Second moments of one layer in rank space.

    For input x of a token, z = down x `(R,)` with down = [down_c ; down_s], R = r_c + r_s:

        G = Σ_k E_k[z zᵀ] + γ E_joint[z zᵀ],    Q_k = E_k[z_k zᵀ] + γ E_joint[z_k zᵀ]

    E_k is the mean over the tokens of LoRA k alone at its own prompt, E_joint over those of both
    LoRAs together at a joint prompt; z_k are LoRA k's entries of z, and Q_k its rows of Q. The
    factors are balanced first (upᵀ up = down downᵀ), so that the result does not depend on how a
    file splits an update into up and down.

    Args:
        pair: the factors; one half may be missing.
        joint_weight: γ.

    `branches` has the balanced factors; they are the model's branches during the calibration.
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
        """The rows [down_c ; down_s] `(R, in, *k)`, on the model's device."""
        return self.branches.down

    def add(self, x: Tensor, concept: int, layer: nn.Module) -> None:
        """Add a layer's input from a sample of CONTENT, STYLE or JOINT; calls have equal weight."""
        z = self._coordinates(x, layer)
        moment = z.T @ z * ((self.joint_weight if concept == JOINT else 1.0) / len(z))
        if self.gram.device != z.device:
            self.gram, self.cross, self.own = (m.to(z.device) for m in self._sums)
        rows = self.rows[concept]
        self.gram += moment
        self.cross[rows] += moment[rows]
        self.own[rows, rows] += moment[rows, rows]

    def router(self, ridge: float = RIDGE) -> Tensor | None:
        """Solve for the router, which mixes the directions, in float64 on the CPU.

            Router = (Q + λ I)(G + λ I)⁻¹,    λ = ridge · mean(diag G)

        up Router down is the LoRA closest to each single LoRA on its own tokens, and to their sum
        on joint ones (SSR-Merge, arXiv:2606.10617). The ridge pulls towards the identity (the plain
        sum), not towards zero, so that directions that no token excites are kept.

        Returns:
            `(R, R)`; None for a layer without usable activations.
        """
        if not self.usable:
            return None
        gram, cross, _ = (m.cpu().double() for m in self._sums)
        weight = ridge * gram.diagonal().mean()
        eye = weight * torch.eye(len(gram), dtype=gram.dtype)
        router, info = torch.linalg.solve_ex(gram + eye, cross + eye, left=False)
        return None if info or not router.isfinite().all() else router

    def reproduced(self, router: Tensor) -> float:
        """Compute the share of the LoRAs' outputs on calibration tokens that a merge reproduces.

            1 − Σ_k E_k‖up Router z − up_k z_k‖² / Σ_k E_k‖up_k z_k‖²

        with the joint tokens included. Where two unrelated LoRAs of equal strength get the same
        inputs, their sum reaches 0 and their average 0.5, which is the maximum.
        """
        gram, cross, own = (m.cpu().double() for m in self._sums)
        up = torch.cat([f.up.flatten(1) for f in self.pair.factors if f], 1).double()
        product = up.T @ up
        error = own - 2 * router @ cross.T + router @ gram @ router.T
        return 1 - float((product * error).sum() / (product * own).sum())

    def seen_by(self, factors: LoraFactors) -> Tensor:
        """Compute E[u uᵀ], u = down' x, of an update made from the pair: `(r, r)`, float64, CPU.

        Every method's down' has the form C · [down_c ; down_s], so E[u uᵀ] = C G Cᵀ.
        """
        down, own = (d.flatten(1).cpu().double() for d in (self.down, factors.down))
        inverse = torch.linalg.pinv(down @ down.T, rtol=1e-10, hermitian=True)
        change = own @ down.T @ inverse
        return change @ self.gram.cpu().double() @ change.T

    @property
    def usable(self) -> bool:
        """Whether the layer had activations, all of them finite."""
        return bool(self.gram.isfinite().all() and self.gram.diagonal().mean() > 0)

    @property
    def _sums(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.gram, self.cross, self.own

    def _coordinates(self, x: Tensor, layer: nn.Module) -> Tensor:
        """Return z of every token, `(token, R)`."""
        if isinstance(layer, CONVOLUTIONS):
            convolve, how = convolution(layer), (layer.stride, layer.padding, layer.dilation)
            return places(convolve(x.float(), self.down, None, *how), layer).flatten(0, 1)
        return tokens(x, layer).flatten(0, 1) @ self.down.T


def _balanced(factors: LoraFactors | None) -> LoraFactors | None:
    if factors is None:
        return None
    shape = (factors.up.shape[0], *factors.down.shape[1:])
    return balanced(drop_null(*svd_of_factors(factors)), shape)


class RankCalibration:
    """Collects the moments of all layers while calibration pictures are drawn.

    Args:
        pairs: factor pairs by the model's name for the module.
        joint_weight: γ, the weight of a joint picture beside one of each LoRA.
    """

    def __init__(self, pairs: Mapping[str, ModulePair], joint_weight: float = 1.0) -> None:
        self.moments = {name: RankMoments(pair, joint_weight) for name, pair in pairs.items()}
        self.branches = {name: moments.branches for name, moments in self.moments.items()}
        self.concept = CONTENT

    def record(self, name: str, x: Tensor, _out: Tensor, layer: nn.Module) -> None:
        """Add a layer's input for the current concept; see `ActivationRecorder`."""
        self.moments[name].add(x, self.concept, layer)
