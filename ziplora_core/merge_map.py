"""What was learned, layer by layer, as a map of the UNet: blocks in network order × layers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from .coefficients import CONTENT, STYLE
from .merge import MergedLoRA, layer_cosine

BINS = 24
_OUTSIDE = 0.001
"""Share of all coefficients at either end that the histograms count in their last bin."""
_MODULE = re.compile(
    r"lora_unet_(?P<part>input_blocks|middle_block|output_blocks|time_embed|label_emb|out)"
    r"(?P<numbers>(_\d+)*)(_transformer_blocks_(?P<transformer>\d+))?_?(?P<layer>.*)"
)
_PARTS = ("time_embed", "label_emb", "input_blocks", "middle_block", "output_blocks", "out")
_LAYERS = {
    **{f"attn{n}_to_{to}": f"attn{n}.to_{to}" for n in (1, 2) for to in "qkv"},
    "attn1_to_out_0": "attn1.to_out",
    "attn2_to_out_0": "attn2.to_out",
    "ff_net_0_proj": "ff.net.0.proj",
    "ff_net_2": "ff.net.2",
    "in_layers_2": "in_layers.2",
    "emb_layers_1": "emb_layers.1",
    "out_layers_3": "out_layers.3",
}
_ROWS = tuple(f"attn{n}.to_{to}" for n in (1, 2) for to in ("q", "k", "v", "out"))
"""The rows that nearly every merge has; others follow by name."""


def merge_map(merged: MergedLoRA) -> dict[str, Any] | None:
    """Describe the coefficients of every layer as JSON has it; None for a merge without any, or
    with a module that has no place in the UNet.

    Returns:
        `blocks` and `layers`, names of the columns and rows; `cells`, for each layer its column,
        row, mean |m_c|, mean |m_s|, layer cosine before and after (DESIGN §4); `histograms`, for
        each the counts of m_c and of m_s in `BINS` bins between both ends of `range`.
    """
    if not merged.coefficients or not all(map(_MODULE.fullmatch, merged.coefficients)):
        return None
    places = {name: _place(name) for name in merged.coefficients}
    blocks = sorted({block for block, _ in places.values()})  # in network order
    found = {layer for _, layer in places.values()}
    layers = [row for row in _ROWS if row in found] + sorted(found - set(_ROWS))
    low, high = _range(merged.coefficients.values())
    cells, histograms = [], []
    for name, columns in merged.coefficients.items():
        block, layer = places[name]
        pair = merged.pairs[name]
        values = [
            *(float(columns[concept].abs().mean()) for concept in (CONTENT, STYLE)),
            layer_cosine(pair),
            layer_cosine(pair, columns),
        ]
        cells.append([blocks.index(block), layers.index(layer), *(round(v, 4) for v in values)])
        counted = columns.float().clamp(low, high)
        histograms.append([torch.histc(row, BINS, low, high).int().tolist() for row in counted])
    return {
        "blocks": [_title(block) for block in blocks],
        "layers": layers,
        "cells": cells,
        "range": [round(low, 4), round(high, 4)],
        "histograms": histograms,
    }


Block = tuple[int, tuple[int, ...], int]
"""Part of the UNet, numbers within it, transformer (−1: none)."""


def _place(name: str) -> tuple[Block, str]:
    """Find the column and the row of a module by its kohya name."""
    found = _MODULE.fullmatch(name)
    assert found is not None
    numbers = tuple(int(n) for n in found["numbers"].split("_") if n)
    transformer = int(found["transformer"] or -1)
    layer = found["layer"] or found["part"]
    return (_PARTS.index(found["part"]), numbers, transformer), _LAYERS.get(layer, layer)


def _title(block: Block) -> str:
    """Name a block as sgm does, and which of its transformers: `input_blocks.4.1 · 0`."""
    part, numbers, transformer = block
    name = ".".join([_PARTS[part], *map(str, numbers)])
    return name if transformer < 0 else f"{name} · {transformer}"


def _range(coefficients: Iterable[Tensor]) -> tuple[float, float]:
    """Both ends of the histograms, without the few that lie far outside."""
    flat = torch.cat([m.float().flatten() for m in coefficients]).sort().values
    outside = int(_OUTSIDE * len(flat))
    low, high = float(flat[outside]), float(flat[-1 - outside])
    return (low, high) if high > low else (low - 0.5, high + 0.5)
