"""UnZipLoRA's parameters: two LoRAs beside the same layers, and their mergers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..lora.coefficients import MergerCoefficients
from ..lora.factors import LoraFactors
from ..lora.layers import reads_prompt
from ..lora.merged import scale_rows
from ..training.branches import Branches
from ..training.lora_parameters import LoRAParameters, beside_the_model
from ..training.random import Stream, generator


class UnZipLoRAParameters:
    """A content and a style LoRA of one rank, scale 1, and a merger per output feature of each.

        y = W0 x + Σ_k g_k ⊙ up_k(down_k(x_k)),    g_k = m_k · M_k

    m are the mergers, M the feature masks. The rows g_k are folded into `up`, so that no activation
    as large as the layer's output is kept for them.

    Args:
        shapes: the weight's shape `(out, in)` by module.
        rank: the rank of both LoRAs.
        seed: the seed of the initial values.
        device: the device of the parameters.
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
                shapes,
                rank,
                rank,
                generator(seed, Stream.UNZIPLORA_START, half),
                device,
                beside_the_model,
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
        """The content factors, style factors and mergers, one flat tensor each."""
        return [*(half.flat for half in self.halves), self.mergers.flat]

    def fold(self, dtype: torch.dtype, rows: Mapping[str, Tensor]) -> None:
        """Put the factors into the branches as `dtype`, rows g `(2, out)` folded into `up`."""
        content, style = (half.factors() for half in self.halves)
        for name, (g_content, g_style) in rows.items():
            self.branches[name].set_factors(
                [
                    _folded(content[name], g_content, dtype),
                    _folded(style[name], g_style, dtype),
                ]
            )

    def detached(self, rows: Mapping[str, Tensor]) -> list[dict[str, LoraFactors]]:
        """Copy content and style, rows folded in, without modules whose rows are all zero."""
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
    up = scale_rows(factors.up, row)  # in float32: bf16 would round the mergers
    return LoraFactors(factors.down.to(dtype), up.to(dtype), factors.alpha)
