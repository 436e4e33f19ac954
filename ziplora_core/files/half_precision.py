"""Factors whose magnitudes fp16 cannot hold, or only with few digits."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from ..lora.factors import LoraFactors

_SMALL = 5e-4
"""Maximum of a factor below which fp16, with steps of 1e-7, has few digits for its elements."""
_LARGEST = torch.finfo(torch.float16).max


def within_fp16(down: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Balance the magnitudes of two factors where fp16 would lose digits, or cannot hold them.

    For example, a layer that has hardly trained has an up of 1e-8 beside a down of 0.1, and a
    LoRA that two programs have rescaled one of 1e5 beside 1e-6. The update stays the same.
    """
    sizes = [float(factor.abs().max()) for factor in (down, up)]
    if not min(sizes) > 0 or not math.isfinite(max(sizes)):
        return down, up
    if max(sizes) > _LARGEST:
        return _balanced_by_rank(down, up)
    if min(sizes) >= _SMALL or max(sizes) < _SMALL:
        return down, up
    shift = (sizes[1] / sizes[0]) ** 0.5
    return down * shift, up / shift


def comparable(factors: LoraFactors) -> LoraFactors:
    """Balance factors outside of fp16's range, whose squares would hide the update's own digits."""
    if max(float(half.abs().max()) for half in (factors.down, factors.up)) <= _LARGEST:
        return factors
    down, up = _balanced_by_rank(factors.down, factors.up)
    return replace(factors, down=down, up=up)


def _balanced_by_rank(down: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Give both halves of each rank the same largest element, if the update itself fits into fp16.

    Loaders multiply the halves in fp16, where a larger update would be infinite.
    """
    rows, columns = down.flatten(1).abs().amax(1).double(), up.flatten(1).abs().amax(0).double()
    if float((rows * columns).max()) > _LARGEST:
        return down, up
    shift = torch.where((rows > 0) & (columns > 0), (columns / rows).sqrt(), 1.0).to(down.dtype)
    return (
        down * shift.view(-1, *(1,) * (down.ndim - 1)),
        up / shift.view(1, -1, *(1,) * (up.ndim - 2)),
    )
