"""The learned coefficients as a map of the UNet: blocks in network order × layers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ..lora.blocks import network_order, short_block, split_module
from ..lora.coefficients import CONTENT, STYLE
from ..lora.merged import MergedLoRA, layer_cosine

BINS = 24
_OUTSIDE = 0.001
"""Share of all coefficients at either end that the histograms count in their outermost bins."""
_ROWS = tuple(f"attn{n}.to_{to}" for n in (1, 2) for to in ("q", "k", "v", "out"))
"""The rows that nearly every merge has; further rows follow by name."""


def merge_map(merged: MergedLoRA) -> dict[str, Any] | None:
    """Describe the coefficients of every layer as a JSON object.

    The layer cosine of a module is ⟨m_c ⊗ delta_c, m_s ⊗ delta_s⟩_F / (‖m_c ⊗ delta_c‖_F
    ‖m_s ⊗ delta_s‖_F); before the merge was learned, m = 1.

    Returns:
        `blocks` and `layers`, the names of the columns and rows; `groups`, a short name for each
        column; `cells`, for each layer its column, row, mean |m_c|, mean |m_s|, layer cosine before
        and after; `histograms`, for each layer the counts of m_c and of m_s in `BINS` bins between
        both ends of `range`. None for a merge without coefficients, or with a module that has no
        place in the UNet.
    """
    places = {}
    for name in merged.coefficients:
        if (place := split_module(name)) is None:
            return None
        places[name] = place[0], _layer_title(*place)
    if not places:
        return None
    blocks = network_order({block for block, _ in places.values()})
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
        "blocks": [_block_title(block) for block in blocks],
        "groups": [short_block(block) or _block_title(block) for block in blocks],
        "layers": layers,
        "cells": cells,
        "range": [round(low, 4), round(high, 4)],
        "histograms": histograms,
    }


def _block_title(block: str) -> str:
    """Name a block as sgm does, with the number of its transformer: `input_blocks.4.1 · 0`."""
    name, *transformer = block.split("_transformer_blocks_")
    return " · ".join([_dotted(name), *transformer])


def _layer_title(block: str, layer: str) -> str:
    """Name a layer within its block as sgm does: `attn1.to_q`."""
    title = _dotted(layer).replace("ff_", "ff.").replace("to_out.0", "to_out")
    return title or _dotted(block).split(".")[0]


def _dotted(name: str) -> str:
    """Put the dots back around numbers."""
    return re.sub(r"_(?=\d)|(?<=\d)_", ".", name)


def _range(coefficients: Iterable[Tensor]) -> tuple[float, float]:
    """Find both ends of the histograms, without the outermost coefficients."""
    flat = torch.cat([m.float().flatten() for m in coefficients]).sort().values
    outside = int(_OUTSIDE * len(flat))
    low, high = float(flat[outside]), float(flat[-1 - outside])
    return (low, high) if high > low else (low - 0.5, high + 0.5)
