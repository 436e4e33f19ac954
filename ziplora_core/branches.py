"""The one mechanism: gated low-rank branches beside a frozen layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .lora import LoraFactors


@dataclass(frozen=True)
class Gates:
    """How far each branch is open for each sample of a batch.

    Args:
        values: `(sample, branch)`, or None where every branch is fully open.
        learned: False reads the learned columns as one: the single-LoRA teacher.
    """

    values: Tensor | None = None
    learned: bool = True

    def of(self, samples: Sequence[int]) -> Gates:
        """Keep the rows of some samples."""
        return self if self.values is None else Gates(self.values[list(samples)], self.learned)


class Branches:
    """The branches of one layer, concatenated along their rank into one down and one up product.

        delta(x) = Σ_k gate_k · scale_k · up_k( down_k( column_k ⊙ x ) )

    `column_k` `(in,)` scales input feature j of branch k (ZipLoRA, arXiv:2311.13600, eq. 2); since
    `delta_k · diag(column_k) = up_k (down_k · diag(column_k))` it is folded into `down`.

    Args:
        factors: one entry per branch, None where that LoRA has no such module.
    """

    def __init__(self, factors: Sequence[LoraFactors | None]) -> None:
        self.ranks = [0 if f is None else f.rank for f in factors]
        self.set_factors(factors)
        self.branch_of_row = torch.repeat_interleave(
            torch.arange(len(self.ranks)), torch.tensor(self.ranks)
        )
        self._folded: Tensor | None = None

    @property
    def width(self) -> int:
        """Number of input features (columns)."""
        return self.down.shape[1]

    def set_factors(self, factors: Sequence[LoraFactors | None]) -> None:
        """Take these factors, of the same ranks, from now on; gradients flow back to them."""
        present = [f for f in factors if f is not None]
        self.down = _joined([f.down for f in present], dim=0)  # (Σ rank, in, *k)
        self.up = _joined(  # (out, Σ rank, *1)
            [f.up if f.scale == 1 else f.scale * f.up for f in present], dim=1
        )

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        """Move to where the layer computes, in its dtype; `down` stays float32, to fold."""
        self.down = self.down.to(device)
        self.up = self.up.to(device, dtype)
        self.branch_of_row = self.branch_of_row.to(device)
        if self._folded is not None:
            self._folded = self._folded.to(device, dtype)

    def fold(self, columns: Tensor) -> None:
        """Fold `columns` `(branch, in)` into `down`; gradients flow back to them."""
        rows = columns.to(self.down.device).index_select(0, self.branch_of_row)  # (Σ rank, in)
        folded = self.down * rows.view(*rows.shape, *(1,) * (self.down.ndim - 2))
        self._folded = folded.to(self.up.dtype)

    def delta(self, x: Tensor, gates: Gates, layer: nn.Module) -> Tensor:
        """Compute what the branches add to the layer's output for its input `x`."""
        down = self.down if self._folded is None or not gates.learned else self._folded
        down, up = down.to(x.dtype), self.up.to(x.dtype)
        if isinstance(layer, nn.Conv2d):
            z = F.conv2d(x, down, None, layer.stride, layer.padding, layer.dilation)
        else:
            z = F.linear(x, down)
        if gates.values is not None:
            rows = gates.values.to(z)  # (sample, branch)
            if len(self.ranks) > 1:
                rows = rows[:, self.branch_of_row]  # (sample, Σ rank)
            middle = (1,) * (z.ndim - 2)
            shape = (*rows.shape, *middle) if z.ndim == 4 else (len(rows), *middle, rows.shape[1])
            z = z * rows.view(shape)
        return F.conv2d(z, up) if isinstance(layer, nn.Conv2d) else F.linear(z, up)


def _joined(parts: Sequence[Tensor], dim: int) -> Tensor:
    """Concatenate; one part alone is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim)
