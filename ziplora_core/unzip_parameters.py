"""What UnZipLoRA learns: two LoRAs beside the same layers, and how they share features."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .branches import Branches
from .coefficients import MergerCoefficients
from .layers import reads_prompt
from .lora import LoraFactors
from .lora_parameters import LoRAParameters, beside_the_model
from .merge import scale_rows
from .states import generator

_START = 37  # purpose of a generator


class UnZipParameters:
    """A content and a style LoRA of one rank, scale 1, and a merger per output feature of each.

        y = W0 x + Σ_k g_k ⊙ up_k(down_k(x_k)),    g_k = m_k · M_k

    The rows g_k are folded into `up`: nothing as large as the layer's output is kept for them.

    Args:
        shapes: weight shape `(out, in)` by module.
        rank: of both.
        seed: of the start.
        device: where they live.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        rank: int,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.halves = tuple(
            LoRAParameters(
                shapes, rank, rank, generator(seed, _START, half), device, beside_the_model
            )
            for half in range(2)
        )
        self.heights = {name: shape[0] for name, shape in shapes.items()}
        self.mergers = MergerCoefficients(self.heights, device)
        with torch.no_grad():
            pairs = zip(*(half.factors().values() for half in self.halves), strict=True)
            self.branches = {
                name: Branches(pair, reads_prompt(name))
                for name, pair in zip(shapes, pairs, strict=True)
            }

    @property
    def leaves(self) -> list[Tensor]:
        """Content's factors, style's factors, mergers."""
        return [*(half.flat for half in self.halves), self.mergers.flat]

    def fold(self, dtype: torch.dtype, rows: Mapping[str, Tensor]) -> None:
        """Put the present factors into the branches, rows g `(2, out)` in `up`, cast."""
        content, style = (half.factors() for half in self.halves)
        for name, (g_content, g_style) in rows.items():
            self.branches[name].set_factors(
                [
                    _folded(content[name], g_content, dtype),
                    _folded(style[name], g_style, dtype),
                ]
            )

    def detached(self, rows: Mapping[str, Tensor]) -> list[dict[str, LoraFactors]]:
        """Copy content and style out, rows folded in; of which nothing is left, is left out."""
        with torch.no_grad():
            return [
                {
                    name: _folded(factors, rows[name][k].cpu(), torch.float32)
                    for name, factors in half.detached().items()
                    if rows[name][k].any()
                }
                for k, half in enumerate(self.halves)
            ]


def _folded(factors: LoraFactors, row: Tensor, dtype: torch.dtype) -> LoraFactors:
    up = scale_rows(factors.up, row)  # float32: a merger has more digits than bf16
    return LoraFactors(factors.down.to(dtype), up.to(dtype), factors.alpha)
