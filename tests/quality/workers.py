"""The processes that the benchmark runs in: one thread each, with ComfyUI and the pack at hand."""

from __future__ import annotations

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor

from sandbox.paths import ROOT, use_comfyui

COUNT = min(os.cpu_count() or 1, 8)


def start() -> ProcessPoolExecutor:
    """Start a process a core; ComfyUI cannot be forked."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(COUNT, context, initializer=_prepare)


def find_modules() -> None:
    """Let ComfyUI, the pack and the tests' own packages be imported."""
    use_comfyui()
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))  # last: ComfyUI has a nodes.py, the pack a nodes folder


def _prepare() -> None:
    find_modules()
    import torch

    torch.set_num_threads(1)
