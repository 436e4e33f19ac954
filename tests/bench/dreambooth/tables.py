"""The tables of the DreamBooth benchmark, on the tiny SDXL."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import comfy.model_management
import torch

from ..table import Table
from . import diffusers_script, full_tuning, ours, sizes, stock
from .task import make_task
from .timing import REPETITIONS, STEPS, Train, compare

COMPARISONS: dict[str, dict[str, Train]] = {
    "attention, rank 64": {
        "ours": partial(ours.train, layers="attention", rank=64),
        "diffusers": partial(diffusers_script.train, rank=64),
        "full fine-tuning": full_tuning.train,
    },
    "attention, rank 8": {
        "ours": partial(ours.train, layers="attention", rank=8),
        "diffusers": partial(diffusers_script.train, rank=8),
    },
    "all layers, rank 8": {
        "ours": partial(ours.train, layers="all", rank=8),
        "ComfyUI's TrainLoraNode": partial(stock.train, rank=8),
    },
}
CASES = ((1, 16), (2, 16), (1, 32), (2, 32))
"""Pairs of batch size and latent side."""


def tables() -> Iterator[Table]:
    """Compare seconds per step on the CPU with one thread, and count bytes."""
    if comfy.model_management.get_torch_device().type == "cpu":
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            for title, methods in COMPARISONS.items():
                yield steps(title, methods)
        finally:
            torch.set_num_threads(threads)
    yield from sizes.tables()


def steps(title: str, methods: dict[str, Train]) -> Table:
    """Compare seconds per training step."""
    tasks = {f"{batch} × {size}²": make_task(batch, size) for batch, size in CASES}
    columns: dict[str, str] = {}
    rows: dict[str, dict[str, float | None]] = {name: {} for name in methods}
    for case, task in tasks.items():
        columns |= {case: ".3f", f"{case}, ×": ".2f"}
        for name, figures in compare(methods, task).items():
            rows[name] |= dict(zip((case, f"{case}, ×"), figures, strict=True))
    return Table(
        f"Seconds per step of training a LoRA, tiny SDXL, {title}",
        columns,
        rows,
        [
            "columns: batch × side² of the latents; ×: how many times ours",
            "float32, AdamW, one thread, no checkpointing, latents and prompts encoded beforehand; "
            f"medians of {REPETITIONS} runs of {STEPS} steps, in turns",
        ],
    )
