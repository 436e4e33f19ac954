"""Print what our DreamBooth trainer costs beside the others, on the tiny SDXL: `make bench`."""

from __future__ import annotations

import sys
from functools import partial

from sandbox.paths import ROOT, use_comfyui

use_comfyui()
sys.path.append(str(ROOT))  # last: ComfyUI has a nodes.py, the pack a nodes folder

import torch  # noqa: E402

from sandbox.commands import say  # noqa: E402

from . import diffusers_script, full_tuning, ours, sizes, stock  # noqa: E402
from .table import print_table  # noqa: E402
from .task import make_task  # noqa: E402
from .timing import REPETITIONS, STEPS, Train, compare  # noqa: E402

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
"""Batch and side of the latents."""


def main() -> None:
    torch.set_num_threads(1)
    say(
        "Seconds per training step on the tiny SDXL, and how many times ours: float32, AdamW, one\n"
        "thread, no checkpointing, latents and prompts encoded beforehand.\n"
        f"Medians of {REPETITIONS} runs of {STEPS} steps, in turns."
    )
    tasks = {f"batch {batch}, {size} × {size}": make_task(batch, size) for batch, size in CASES}
    for title, methods in COMPARISONS.items():
        cases = [compare(methods, task) for task in tasks.values()]
        rows = [[name, *("{:.3f} ({:.2f})".format(*c[name]) for c in cases)] for name in methods]
        print_table([title, *tasks], rows)
    sizes.print_sizes()


if __name__ == "__main__":
    main()
