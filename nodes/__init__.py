"""The pack's nodes: each file ends in its own NODES; this one puts them together."""

from __future__ import annotations

from comfy_api.latest import io

from . import load, merge, optimize, options, save

NODES: list[type[io.ComfyNode]] = [
    *load.NODES,
    *optimize.NODES,
    *options.NODES,
    *merge.NODES,
    *save.NODES,
]
