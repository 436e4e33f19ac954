"""ZipLoRA's merger coefficients: what is learned."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

CONTENT, STYLE = 0, 1


class MergerCoefficients:
    """One coefficient per *input column* of each LoRA, m_c and m_s, all ones at first.

        delta_merged = m_c ⊗ delta_c + m_s ⊗ delta_s    (Shah et al. 2023, arXiv:2311.13600, eq. 2)

    UnZipLoRA's mergers are the same with one coefficient per *output* feature, which it calls a
    column, too. They lie in one flat float32 leaf, so that the optimiser makes one update for all
    layers.

    Args:
        widths: input features of every module that is trained (UnZipLoRA: output features).
        device: where the leaf lives.
    """

    def __init__(self, widths: Mapping[str, int], device: torch.device | str = "cpu") -> None:
        self.widths = dict(widths)
        self.flat = torch.ones(2 * sum(self.widths.values()), device=device, requires_grad=True)

    def columns(self) -> dict[str, Tensor]:
        """View the leaf per module as `(2, in)`: row CONTENT, row STYLE; differentiable."""
        pieces = self.flat.split([2 * width for width in self.widths.values()])
        return {name: piece.view(2, -1) for name, piece in zip(self.widths, pieces, strict=True)}

    def set(self, columns: Mapping[str, Tensor]) -> None:
        """Take over the coefficients of some modules."""
        mine = self.columns()
        with torch.no_grad():
            for name, values in columns.items():
                mine[name].copy_(values)

    def detached(self) -> dict[str, Tensor]:
        """Copy the coefficients out, per module `(2, in)`, on the CPU."""
        return {name: m.detach().to("cpu", copy=True) for name, m in self.columns().items()}
