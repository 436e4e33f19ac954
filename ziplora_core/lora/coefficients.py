"""ZipLoRA's merger coefficients, the parameters that training learns."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

CONTENT, STYLE = 0, 1


class MergerCoefficients:
    """One coefficient per *input column* of each LoRA, m_c and m_s, initialised to one.

        delta_merged = m_c ⊗ delta_c + m_s ⊗ delta_s    (Shah et al. 2023, arXiv:2311.13600, eq. 2)

    UnZipLoRA's mergers have the same form, with one coefficient per *output* feature, which it
    calls a column, too. All coefficients are stored in one flat float32 leaf, so that the optimiser
    makes one update for all layers.

    Args:
        widths: number of input features of every trained module (UnZipLoRA: output features).
        device: the leaf's device.
    """

    def __init__(self, widths: Mapping[str, int], device: torch.device | str = "cpu") -> None:
        self.widths = dict(widths)
        self.flat = torch.ones(2 * sum(self.widths.values()), device=device, requires_grad=True)

    def by_module(self) -> dict[str, Tensor]:
        """Return differentiable views of the leaf, `(2, in)` per module: row CONTENT, row STYLE."""
        pieces = self.flat.split([2 * width for width in self.widths.values()])
        return {name: piece.view(2, -1) for name, piece in zip(self.widths, pieces, strict=True)}

    def set(self, columns: Mapping[str, Tensor]) -> None:
        """Overwrite the coefficients of the given modules."""
        mine = self.by_module()
        with torch.no_grad():
            for name, values in columns.items():
                mine[name].copy_(values)

    def detached(self) -> dict[str, Tensor]:
        """Return a copy of the coefficients on the CPU, `(2, in)` per module."""
        return {name: m.detach().to("cpu", copy=True) for name, m in self.by_module().items()}
