"""The terms of ZipLoRA's loss, as pure functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def mean_squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean over the elements of each sample, in float32: `(b, c, h, w)` ×2 → `(b,)`."""
    return (prediction.float() - target.float()).square().flatten(1).mean(1)


def min_snr_weight(sigma: Tensor, gamma: float, v_prediction: bool) -> Tensor:
    """Weigh timesteps by min(SNR, γ)/SNR (eps) or min(SNR, γ)/(SNR + 1) (v); γ = 0: all alike.

    Hang et al. 2023, arXiv:2303.09556, eq. 8; SNR = 1/σ². `sigma` `(b,)` → `(b,)`.
    """
    if gamma <= 0:
        return torch.ones_like(sigma)
    snr = sigma.square().reciprocal()
    return snr.clamp(max=gamma) / (snr + 1 if v_prediction else snr)


def cosine(columns: Tensor, _column_cosines: Tensor) -> Tensor:
    """|cos(m_c, m_s)|: free of scale, so it cannot reward shrinking both. Zero gradient at ones."""
    return torch.cosine_similarity(columns[0], columns[1], dim=0, eps=1e-12).abs()


def dot_mean(columns: Tensor, _column_cosines: Tensor) -> Tensor:
    """mean_j |m_c,j m_s,j|: the public implementation's form."""
    return (columns[0] * columns[1]).abs().mean()


def dot_sum(columns: Tensor, _column_cosines: Tensor) -> Tensor:
    """|m_c · m_s|: eq. 3 to the letter."""
    return torch.dot(columns[0], columns[1]).abs()


def column_cosine(columns: Tensor, column_cosines: Tensor) -> Tensor:
    """mean_j |m_c,j m_s,j cos(delta_c[:, j], delta_s[:, j])|: what the paper's §3.3 argues for."""
    return (columns[0] * columns[1] * column_cosines).abs().mean()


SIMILARITIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    form.__name__: form for form in (cosine, dot_mean, dot_sum, column_cosine)
}
"""The four forms of the penalty, each for one layer: `(2, in)`, `(in,)` → scalar."""


def similarity_penalty(
    form: str, columns: Mapping[str, Tensor], column_cosines: Mapping[str, Tensor]
) -> Tensor:
    """Sum a penalty over the layers (the sum of arXiv:2311.13600, eq. 3), unweighted.

    Layers of one width are taken at once: SDXL's 560 have three.
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
    """Mean over the layers of |cos(m_c, m_s)|: what the paper's stopping rule watches."""
    detached = {name: m.detach() for name, m in columns.items()}
    unused = {name: m[0] for name, m in detached.items()}
    return float(similarity_penalty("cosine", detached, unused)) / len(columns)
