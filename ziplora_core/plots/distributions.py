"""Figures 2 and 3 of the ZipLoRA paper, and histograms of the coefficients."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from operator import itemgetter

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from ..lora.blocks import short_block
from ..lora.coefficients import CONTENT, STYLE
from ..lora.merged import LayerCosine
from ..lora.pruning import WeightEntries
from .style import DARK, Pixels, Theme, legend_above, make_figure, pixels, say

_BINS = 240
_TAIL = 5e-4
"""Share of the coefficients at either end outside the axis, as a few are very large."""
_ROOM, _LEAST_ROOM = 0.07, 0.032
"""Shares of the width that a block's name needs horizontally and vertically. If one block is too
narrow for the first, all names are vertical; a name without room beside a wider block's is left
out."""


def entries_histogram(
    entries: WeightEntries, width: int = 1024, height: int = 640, theme: Theme = DARK
) -> Pixels:
    """Draw the histogram of an update's entries as `(height, width, 3)` uint8.

    The counts have a logarithmic axis (Shah et al. 2023, arXiv:2311.13600, Fig. 2).
    """
    figure, (axes,) = make_figure(width, height, theme)
    if not entries.largest:
        say(axes, "every entry is zero", theme)
        return pixels(figure)
    edges = np.linspace(-entries.reach, entries.reach, len(entries.counts) + 1)
    axes.stairs(entries.counts.numpy(), edges, baseline=0.7, color=theme.content, fill=True)
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.7)
    axes.set_xlim(-1.02 * entries.largest, 1.02 * entries.largest)
    axes.ticklabel_format(axis="x", style="sci", scilimits=(-3, 3), useMathText=True)
    axes.xaxis.get_offset_text().set(color=theme.ink, fontsize=8)
    _name_axes(axes, "entry of ΔW", "number of entries", theme)
    axes.set_title(
        f"ΔW of {entries.modules} layers: {_short(entries.total)} entries, largest "
        f"{entries.largest:.2g}",
        color=theme.ink, fontsize=9,
    )  # fmt: skip
    return pixels(figure)


def layer_cosines_chart(
    cosines: Mapping[str, LayerCosine], width: int = 1024, height: int = 640, theme: Theme = DARK
) -> Pixels:
    """Draw |layer cosine| of every module before and after as `(height, width, 3)` uint8.

    The chart is Fig. 3 of the paper; the layers are those of `layer_cosines`, in its order. A merge
    without coefficients has one curve, as its factors already contain any change by a method.
    """
    figure, (axes,) = make_figure(width, height, theme)
    before, after = np.abs([[c.before, c.after] for c in cosines.values()]).T
    curves = [(before, theme.style, "direct merge"), (after, theme.content, "this merge")]
    for values, colour, name in curves[np.array_equal(before, after) :]:
        label = f"{name}, mean {values.mean():.3g}"
        axes.stairs(values, fill=True, alpha=0.75, color=colour, label=label)
    axes.set_xlim(0, len(before))
    axes.set_ylim(bottom=0)
    _name_blocks(axes, list(cosines), theme)
    _name_axes(axes, "layers, from input to output of the UNet", "|cos| of content, style", theme)
    legend_above(axes, theme)
    return pixels(figure)


def coefficient_histograms(
    coefficients: Mapping[str, Tensor], width: int = 1024, height: int = 640, theme: Theme = DARK
) -> Pixels:
    """Draw histograms of the coefficients, content above style, with logarithmic counts.

    Args:
        coefficients: `(2, in)` per module, as in `MergedLoRA`; may be empty.
        width, height, theme: size and colours of the picture `(height, width, 3)` uint8.
    """
    figure, charts = make_figure(width, height, theme, rows=2 if coefficients else 1)
    if not coefficients:
        say(charts[0], "no coefficients: all are 1", theme)
        return pixels(figure)
    flat = torch.cat([m.float().cpu() for m in coefficients.values()], dim=1).numpy()
    low, high = np.quantile(flat, [_TAIL, 1 - _TAIL])
    low, high = min(low, 0.0) - 0.02, max(high, 1.0) + 0.02
    edges = np.linspace(low, high, _BINS + 1)
    for row, concept in ((CONTENT, "content"), (STYLE, "style")):
        axes, values = charts[row], flat[row]
        counts, _ = np.histogram(values, edges)
        axes.stairs(counts, edges, baseline=0.7, color=theme.of(concept), fill=True)
        axes.axvline(1.0, color=theme.ink, linewidth=0.8, linestyle=":")
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.7)
        axes.set_xlim(low, high)
        axes.set_title(
            f"{concept}: mean {values.mean():.3g}, {values.min():.3g} … {values.max():.3g}",
            color=theme.of(concept), fontsize=9,
        )  # fmt: skip
    _name_axes(charts[-1], "coefficient (1: direct merge)", "", theme)
    return pixels(figure)


def _name_axes(axes: Axes, x: str, y: str, theme: Theme) -> None:
    axes.set_xlabel(x, color=theme.ink, fontsize=9)
    axes.set_ylabel(y, color=theme.ink, fontsize=9)


def _name_blocks(axes: Axes, names: list[str], theme: Theme) -> None:
    """Label the blocks at their layers, with lines between them."""
    blocks, end = [], 0
    for block, inside in groupby(names, short_block):
        start, end = end, end + len(list(inside))
        axes.axvline(end, color=theme.faint, linewidth=0.8)
        blocks.append((end - start, (start + end) / 2, block))
    labels: dict[float, str] = {}
    for _, middle, block in sorted(blocks, key=itemgetter(0), reverse=True):
        if all(abs(middle - other) >= _LEAST_ROOM * len(names) for other in labels):
            labels[middle] = block
    upright = min(width for width, *_ in blocks) < _ROOM * len(names)
    axes.set_xticks(list(labels), list(labels.values()), fontsize=7, rotation=90 if upright else 0)
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False, axis="x")


def _short(count: int) -> str:
    """Format a number, with million or billion for a large one."""
    for unit, size in (("billion", 10**9), ("million", 10**6)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:,}"
