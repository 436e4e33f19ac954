"""Merges of two LoRAs as small matrices in a common basis: TIES, KnOTS and TSV.

Rules that keep or drop single entries do not preserve the rank of a dense delta: reducing the
result to rank r_c + r_s costs a third to four fifths of it. In the space that both LoRAs span, the
result has this rank by construction (core-space merging, arXiv:2509.17786).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ..lora.factors import LoraFactors
from ..lora.merged import MergedLoRA
from ..lora.pair import ModulePair
from ..lora.svd import approximate, drop_null, svd_of_factors
from .settings import Merged, MergeSettings, shared_only, to_rank, weighted

Rule = Callable[[LoraFactors, LoraFactors], LoraFactors]
SMALLEST = 1e-6
"""Eigenvalue up to which two directions of the LoRAs count as one direction."""
EQUAL = 1e-6
"""Relative difference up to which singular values count as equal, so that their directions are
arbitrary."""


def ties(sources: MergedLoRA, settings: MergeSettings) -> Merged:
    """Trim, elect signs and sum (TIES, arXiv:2306.01708, Alg. 1) in the core space.

    With U, V the singular vectors of [delta_c delta_s] and [delta_c ; delta_s], each LoRA is a core
    C_k = Uᵀ delta_k V `(R, R)`; the merge is U · elected(C_c, C_s) · Vᵀ. The basis is that of the
    dense updates, so how a file splits an update into up and down does not matter.
    """

    chance = 0

    def rule(content: LoraFactors, style: LoraFactors) -> LoraFactors:
        nonlocal chance
        basis_up, basis_down, (c, s) = common_basis(content, style)
        chance += _by_chance(c, s) or _by_chance(c.T, s.T)
        core = elected(c, s, settings.density)
        return _factors(basis_up, core @ basis_down.T, content)

    merged, lines = _merge(sources, settings, rule)
    return merged, [*_chance_line(chance), *lines]


def knots(sources: MergedLoRA, settings: MergeSettings) -> Merged:
    """Apply TIES to rows aligned by one SVD of both (KnOTS, arXiv:2410.19735, Alg. 1).

    [delta_c delta_s] = U S [V_cᵀ V_sᵀ]; the merge is U · elected(S V_cᵀ, S V_sᵀ).
    """

    chance = 0

    def rule(content: LoraFactors, style: LoraFactors) -> LoraFactors:
        nonlocal chance
        ups = [f.scale * f.up.flatten(1).double() for f in (content, style)]
        (q_c, l_c), (q_s, l_s) = (
            torch.linalg.qr(f.down.flatten(1).double().T) for f in (content, style)
        )
        q_up, r_up = torch.linalg.qr(torch.cat(ups, 1))
        joined = r_up @ torch.block_diag(l_c.T, l_s.T)
        u, s, wh = drop_null(*torch.linalg.svd(joined, full_matrices=False))
        rows_c, rows_s = (s[:, None] * wh).split([len(l_c), len(l_s)], 1)
        chance += _by_chance(rows_c, rows_s)
        merged = elected(rows_c @ q_c.T, rows_s @ q_s.T, settings.density)
        return _factors(q_up @ u, merged, content)

    merged, lines = _merge(sources, settings, rule)
    return merged, [*_chance_line(chance), *lines]


def tsv(sources: MergedLoRA, settings: MergeSettings) -> Merged:
    """Make the singular vectors of both orthonormal together (TSV-M, arXiv:2412.00081, Alg. 1).

        delta = polar([U_c U_s]) diag(S_c, S_s) polar([V_c V_s])ᵀ,    polar(X) = X (XᵀX)^(−1/2)

    Unlike null_space, the method treats both LoRAs alike. Orthogonal LoRAs give the sum.
    """

    shared, directions = 0, 0

    def rule(content: LoraFactors, style: LoraFactors) -> LoraFactors:
        nonlocal shared, directions
        parts = [_thin(factors) for factors in (content, style)]
        u, s, v = (torch.cat(part, -1) for part in zip(*parts, strict=True))
        root = s.sqrt()
        (up, up_lost), (down, down_lost) = polar(u), polar(v)
        shared, directions = shared + max(up_lost, down_lost), directions + len(s)
        return _factors(up * root, (down * root).T, content)

    merged, lines = _merge(sources, settings, rule)
    said = f"{shared} of {directions} directions occur in both LoRAs and are merged into one"
    return merged, [said, *lines]


def common_basis(
    content: LoraFactors, style: LoraFactors
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Write both updates in one orthonormal basis: delta_k = U C_k Vᵀ, float64, lossless.

    Returns:
        U `(out, R)`, V `(in·k, R')` and the cores `(R, R')`, without directions that neither has.
    """
    ups = torch.cat([f.scale * f.up.flatten(1).double() for f in (content, style)], 1)
    downs = torch.cat([f.down.flatten(1).double() for f in (content, style)])
    q_up, r_up = torch.linalg.qr(ups)
    q_down, r_down = torch.linalg.qr(downs.T)
    ranks = [content.rank, style.rank]
    small = [
        up @ down.T for up, down in zip(r_up.split(ranks, 1), r_down.split(ranks, 1), strict=True)
    ]
    u = drop_null(*torch.linalg.svd(torch.cat(small, 1), full_matrices=False))[0]
    v = drop_null(*torch.linalg.svd(torch.cat(small), full_matrices=False))[2].T
    c, s = (u.T @ m @ v for m in small)
    return q_up @ u, q_down @ v, (c, s)


def elected(content: Tensor, style: Tensor, density: float) -> Tensor:
    """Keep the largest entries of each, elect a sign per entry, sum the entries that agree with it.

    The original averages the entries that agree, which halves those that both LoRAs have. For two
    LoRAs, the merge is meant to be the sum.
    """
    kept = [_trimmed(part, density) for part in (content, style)]
    sign = torch.sign(kept[0] + kept[1])
    return sum((part * (part * sign > 0) for part in kept), torch.zeros_like(content))


def polar(x: Tensor) -> tuple[Tensor, int]:
    """Compute the orthonormal matrix nearest to X `(n, r)`: X (XᵀX)^(−1/2).

    Missing directions of X (as with the same LoRA twice) stay zero.

    Returns:
        The matrix and the number of missing directions.
    """
    values, vectors = torch.linalg.eigh(x.T @ x)
    inverse = torch.where(values > SMALLEST, values.clamp_min(SMALLEST).rsqrt(), 0.0)
    return x @ (vectors * inverse) @ vectors.T, int((values <= SMALLEST).sum())


def _by_chance(content: Tensor, style: Tensor) -> bool:
    """Return whether two basis directions have equal norms, so that any rotation of them is valid.

    The rows of [C_c C_s] are orthogonal, in descending order; their norms are singular values.
    """
    values = torch.cat([content, style], 1).norm(dim=1)
    return bool((values[1:] > (1 - EQUAL) * values[:-1]).any())


def _chance_line(modules: int) -> list[str]:
    """Warn that a rule for single entries depends on an arbitrary choice of basis."""
    if not modules:
        return []
    return [
        f"WARNING: {modules} modules have directions of equal weight, for which the choice of "
        "trimmed entries is arbitrary. null_space, tsv and direct avoid this."
    ]


def _trimmed(values: Tensor, density: float) -> Tensor:
    count = max(1, int(density * values.numel()))
    if count >= values.numel():
        return values
    limit = values.abs().flatten().kthvalue(values.numel() - count + 1).values
    return values * (values.abs() >= limit)


def _thin(factors: LoraFactors) -> tuple[Tensor, Tensor, Tensor]:
    u, s, vh = drop_null(*svd_of_factors(factors))
    return u, s, vh.T


def _factors(up: Tensor, down: Tensor, like: LoraFactors) -> LoraFactors:
    """Return `(out, R)` and `(R, in·k)` as balanced factors, which fp16 stores more exactly."""
    rank = len(down)
    shaped = LoraFactors(
        down.float().view(rank, *like.down.shape[1:]),
        up.float().view(len(up), rank, *like.up.shape[2:]),
    )
    return approximate(shaped, lambda s: rank).factors


def _merge(sources: MergedLoRA, settings: MergeSettings, rule: Rule) -> Merged:
    """Merge the modules that both LoRAs have by a rule; the result is no longer separable."""

    def merge(content: LoraFactors, style: LoraFactors) -> ModulePair:
        return ModulePair(content=rule(content, style))

    merged = shared_only(weighted(sources, settings), merge, settings.on_module)
    return to_rank(replace(merged, separable=False), settings.rank)
