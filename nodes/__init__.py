"""The pack's nodes: every module defines its own `NODES`; this one joins the lists."""

from __future__ import annotations

from comfy_api.latest import io

from . import dreambooth, ziplora
from .files import convert, load, save
from .merging import apply as apply_merge
from .merging import find, merge, resize_extract
from .plots import figures, grids, judge, scores
from .sliders import apply as apply_slider
from .sliders import pairs_and_prompts as slider_inputs
from .sliders import train as train_slider
from .training import images, options, past
from .unziplora import apply as apply_unziplora
from .unziplora import train as train_unziplora

NODES: list[type[io.ComfyNode]] = [
    *load.NODES,
    *ziplora.NODES,
    *images.NODES,
    *dreambooth.NODES,
    *options.NODES,
    *past.NODES,
    *slider_inputs.NODES,
    *train_slider.NODES,
    *apply_slider.NODES,
    *train_unziplora.NODES,
    *apply_unziplora.NODES,
    *merge.NODES,
    *apply_merge.NODES,
    *find.NODES,
    *save.NODES,
    *resize_extract.NODES,
    *convert.NODES,
    *figures.NODES,
    *grids.NODES,
    *scores.NODES,
    *judge.NODES,
]
