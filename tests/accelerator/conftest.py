"""Sessions on an accelerator: a pretend one, or with DEVICE=cuda (xpu, mps, …) a real card.

The pretend device (pretend/device.cpp) has memory of its own and the CPU's arithmetic. It finds
every place where CPU and device tensors meet, counts bytes, copies and waits, and runs out of
memory where it is told to. What a real card does otherwise, and no test here can show:

- streams: all work is done when a call returns, so a missing synchronisation is not seen;
- ComfyUI's asynchronous weight casting, pinned memory and DynamicVRAM, which are for CUDA only;
- asynchronous copies from ordinary memory, which CUDA stages first and which block when large;
- cudaMallocAsync and the caching allocator: no blocks of 512 bytes, no fragments, no workspaces of
  cuBLAS and cuDNN, so real peaks are somewhat higher;
- `torch.Generator(device)`, which it has not: the pack draws on the CPU;
- autocast, flash and sage attention, TF32 and the rounding of a card's own kernels;
- text encoders: ComfyUI itself copies their tokens and outputs, which is left out of counts.

Tests are collected for an accelerator only; `make test` runs them in processes of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.paths import DEVICE, use_comfyui

collect_ignore_glob = ["*"] if DEVICE == "cpu" else []

use_comfyui()

import comfy.model_management  # noqa: E402
import folder_paths  # noqa: E402


@pytest.fixture(autouse=True)
def clean_comfyui(tmp_path: Path) -> Iterator[None]:
    """Keep one test's global state from the next."""
    before = folder_paths.get_output_directory()
    folder_paths.set_output_directory(str(tmp_path / "output"))
    yield
    folder_paths.set_output_directory(before)
    comfy.model_management.unload_all_models()
