"""Modules of a LoRA that are rows of one weight of the model: to_q, to_k and to_v of a qkv."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ...lora.factors import LoraFactors

Target = (
    str
    | tuple[str, tuple[int, int, int] | None]
    | tuple[str, tuple[int, int, int] | None, Callable[[Tensor], Tensor]]
)
"""What ComfyUI's key map says of a name: a weight; or rows of it, (0, first, number); or a weight
whose rows are in another order, with the function that puts them in this one."""


@dataclass(frozen=True)
class Part:
    """The factors of some rows of a weight, and the name that the file has for them."""

    name: str
    rows: range
    factors: LoraFactors


def key_of(target: Target) -> str:
    """Return the key of a target's weight."""
    return target if isinstance(target, str) else target[0]


def rows_of(target: Target, height: int) -> range:
    """Return the rows of a weight of `height` rows that a target means."""
    if isinstance(target, str) or target[1] is None:
        return range(height)
    axis, first, number = target[1]
    assert axis == 0, "ComfyUI's key map cuts weights into rows"
    return range(first, first + number)


def in_order(target: Target, factors: LoraFactors) -> LoraFactors:
    """Put the rows of an update into the order of the target's weight."""
    if isinstance(target, str) or len(target) < 3:
        return factors
    return LoraFactors(factors.down, target[2](factors.up), factors.alpha)


def overlapping(parts: Sequence[Part]) -> Part | None:
    """Return a part some of whose rows another part has, too."""
    ordered = sorted(parts, key=lambda part: (part.rows.start, part.rows.stop))
    pairs = pairwise(ordered)
    return next((after for before, after in pairs if after.rows.start < before.rows.stop), None)


def joined(parts: Sequence[Part], height: int) -> LoraFactors:
    """Join updates of disjoint rows of one weight into its update, exactly.

        down' = [down_1 ; down_2 ; …]    up' = scale_1 up_1 in the rows of 1 and the columns of
                                         down_1, … ; 0 elsewhere

    Parts that share one `down`, as where a fused update was cut into rows, keep its rank.

    Args:
        parts: the parts, without common rows.
        height: the number of rows of the weight.
    """
    first = parts[0].factors
    if len(parts) == 1 and len(parts[0].rows) == height:
        return first
    shared = all(_same(part.factors.down, first.down) for part in parts)
    down = first.down if shared else torch.cat([part.factors.down for part in parts])
    up = first.up.new_zeros(height, len(down), *first.up.shape[2:])
    column = 0
    for part in parts:
        rows, rank = part.rows, part.factors.rank
        up[rows.start : rows.stop, column : column + rank] = part.factors.scale * part.factors.up
        column += 0 if shared else rank
    return LoraFactors(down, up)


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)
