"""The terms of ZipLoRA's loss, as pure functions; other trainers use some of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def mean_squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Compute the mean squared error of each sample in float32: `(b, c, h, w)` ×2 → `(b,)`."""
    return (prediction.float() - target.float()).square().flatten(1).mean(1)


def min_snr_weight(sigma: Tensor, gamma: float, v_prediction: bool) -> Tensor:
    """Compute min(SNR, γ)/SNR (eps) or min(SNR, γ)/(SNR + 1) (v); γ = 0 gives equal weights of 1.

    Hang et al. 2023, arXiv:2303.09556, eq. 8; SNR = 1/σ². `sigma` `(b,)` → `(b,)`.
    """
    if gamma <= 0:
        return torch.ones_like(sigma)
    snr = sigma.square().reciprocal()
    return snr.clamp(max=gamma) / (snr + 1 if v_prediction else snr)


def cosine(columns: Tensor, _column_cosines: Tensor) -> Tensor:
    """Compute |cos(m_c, m_s)|, which is scale-invariant: it does not reward shrinking both.

    Its gradient is zero where all coefficients are one.
    """
    return torch.cosine_similarity(columns[0], columns[1], dim=0, eps=1e-12).abs()


def dot_mean(columns: Tensor, _column_cosines: Tensor) -> Tensor:
    """Compute mean_j |m_c,j m_s,j|, the form of the public implementation."""
    return (columns[0] * columns[1]).abs().mean()


def dot_sum(columns: Tensor, _column_cosines: Tensor) -> Tensor:
    """Compute |m_c · m_s|, the form of eq. 3 (arXiv:2311.13600)."""
    return torch.dot(columns[0], columns[1]).abs()


def column_cosine(columns: Tensor, column_cosines: Tensor) -> Tensor:
    """Compute mean_j |m_c,j m_s,j cos(delta_c[:, j], delta_s[:, j])|, after §3.3 of the paper."""
    return (columns[0] * columns[1] * column_cosines).abs().mean()


SIMILARITIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    form.__name__: form for form in (cosine, dot_mean, dot_sum, column_cosine)
}
"""The four forms of the penalty, each for one layer: `(2, in)`, `(in,)` → scalar."""


def similarity_penalty(
    form: str, columns: Mapping[str, Tensor], column_cosines: Mapping[str, Tensor]
) -> Tensor:
    """Compute the unweighted sum of a penalty over the layers (the sum of arXiv:2311.13600, eq. 3).

    Layers of equal width are computed at once: SDXL's 560 layers have three widths.
    """
    by_width: dict[int, list[str]] = {}
    for name, m in columns.items():
        by_width.setdefault(m.shape[1], []).append(name)
    penalties = torch.vmap(SIMILARITIES[form])
    sums = [
        penalties(
            torch.stack([columns[name] for name in names]),  # (layer, 2, in)
            torch.stack([column_cosines[name] for name in names]),  # (layer, in)
        ).sum()
        for names in by_width.values()
    ]
    return torch.stack(sums).sum()


def coefficient_cosine(columns: Mapping[str, Tensor]) -> float:
    """Compute the mean over the layers of |cos(m_c, m_s)|, for the paper's stopping rule."""
    detached = {name: m.detach() for name, m in columns.items()}
    unused = {name: m[0] for name, m in detached.items()}
    return float(similarity_penalty("cosine", detached, unused)) / len(columns)
