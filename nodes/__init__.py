"""The pack's nodes: each file ends in its own NODES; this one puts them together."""

from __future__ import annotations

from comfy_api.latest import io

from . import (
    alignment,
    convert,
    figures,
    grids,
    load,
    merge,
    optimize,
    options,
    pictures,
    save,
    slider_inputs,
    sliders,
    tools,
    train,
    train_slider,
    train_unzip,
    unzip,
)

NODES: list[type[io.ComfyNode]] = [
    *load.NODES,
    *optimize.NODES,
    *pictures.NODES,
    *train.NODES,
    *options.NODES,
    *slider_inputs.NODES,
    *train_slider.NODES,
    *sliders.NODES,
    *train_unzip.NODES,
    *unzip.NODES,
    *merge.NODES,
    *save.NODES,
    *tools.NODES,
    *convert.NODES,
    *figures.NODES,
    *grids.NODES,
    *alignment.NODES,
]
