"""Factors of dense updates that are low-rank: mkshing's ZipLoRA files, and baked LoRAs."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ZipLoRAError, problem
from ..lora.svd import balanced, randomised_svd

SHORT_SIDE, NUMBERS = 1280, 1280 * 2560 * 9
"""The largest shorter side and number of elements of SDXL's weights. The time of an SVD grows with
the square of the one times the other."""
FIRST_TRY = 160
"""Number of singular directions computed first; enough for two LoRAs of rank 64 and their noise."""
EXACT = 1e-5
"""Largest relative error of numbers that neither fp16 nor bf16 holds exactly."""


def dense_factors(weight: Tensor, subject: str) -> tuple[Tensor, Tensor]:
    """Factor a dense update by an SVD, to within the rounding of its stored numbers.

    A direction counts when its singular value exceeds (√m + √n) / √(m n) · e, the largest singular
    value that rounding errors of norm e have, as a random m × n matrix.

    Args:
        weight: dense update `(out, in, *k)`, float32.
        subject: file and key, for messages.

    Returns:
        up `(out, rank, *1)` and down `(rank, in, *k)`.

    Raises:
        ZipLoRAError: the rank is more than half the full rank, or the residual is too large.
    """
    matrix = weight.flatten(1)  # (out, in·k)
    (m, n), most = matrix.shape, min(matrix.shape) // 2
    error = _rounding_error(matrix)
    noise = error * (m**0.5 + n**0.5) / (m * n) ** 0.5
    rng = torch.Generator().manual_seed(0)  # the same file gives the same factors
    u, s, vh = randomised_svd(matrix, FIRST_TRY, rng, power=1)
    if len(s) == FIRST_TRY and s[-1] > noise:
        u, s, vh = _exact_svd(matrix)
    rank = max(int((s > noise).sum()), 1)
    left_over = torch.linalg.norm(matrix - (u[:, :rank] * s[:rank]) @ vh[:rank])
    if rank > most or left_over > error:
        raise _not_low_rank(subject, (m, n), most)
    factors = balanced((u[:, :rank], s[:rank], vh[:rank]), weight.shape)
    return factors.up, factors.down


def check_dense(weight: Tensor, subject: str) -> None:
    """Refuse a dense update that is larger than every weight of SDXL, before its SVD.

    Raises:
        ZipLoRAError: it is larger.
    """
    short, long = sorted((weight.shape[0], weight[0].numel()))
    if short > SHORT_SIDE or short * long > NUMBERS:
        raise problem(
            subject,
            found=f"a full-weight difference of {weight.shape[0]} x {weight[0].numel()}",
            expected=f"at most {SHORT_SIDE} on its shorter side and {NUMBERS} numbers, as in SDXL",
            advice="Use a plain LoRA, or extract one from a checkpoint with this difference "
            "applied.",
        )


def _exact_svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the SVD from the Gram matrix of the shorter side in float64: A Aᵀ = U S² Uᵀ.

    It is exact to 1e-8 of the largest singular value, which is below the rounding of the numbers,
    and takes a sixth of LAPACK's time on an oblong matrix.
    """
    if matrix.shape[0] > matrix.shape[1]:
        u, s, vh = _exact_svd(matrix.T)
        return vh.T, s, u.T
    wide = matrix.double()
    squares, vectors = torch.linalg.eigh(wide @ wide.T)
    s, u = squares.flip(0).clamp_min(0).sqrt(), vectors.flip(1)
    alive = s > torch.finfo(torch.float32).eps * s[0]
    u, s = u[:, alive], s[alive]
    return u.float(), s.float(), ((u.T @ wide) / s[:, None]).float()


def _rounding_error(matrix: Tensor) -> float:
    """Bound the rounding error ‖·‖_F of numbers stored in the coarsest dtype that holds them."""
    norm = float(torch.linalg.norm(matrix))
    for dtype in (torch.float16, torch.bfloat16):
        if torch.equal(matrix.to(dtype).float(), matrix):
            limits = torch.finfo(dtype)
            return limits.eps / 2 * (norm + limits.smallest_normal * matrix.numel() ** 0.5)
    return EXACT * norm


def _not_low_rank(subject: str, shape: tuple[int, int], most: int) -> ZipLoRAError:
    return problem(
        subject,
        found=f"a full-weight difference of {shape[0]} x {shape[1]} that is not low-rank",
        expected=f"a plain LoRA, or a difference of at most rank {most}, half the full rank",
        advice="Use a plain LoRA, or extract one from a checkpoint with this difference applied.",
    )
