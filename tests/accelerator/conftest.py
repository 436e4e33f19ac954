"""Sessions on an accelerator: a pretend one, or with DEVICE=cuda (xpu, mps, …) a real card.

The pretend device (pretend/device.cpp) has its own memory and the CPU's arithmetic. It reports
every operation that mixes CPU and device tensors, counts bytes, copies and waits, and runs out of
memory on request. Its differences from a real card, which no test here can show:

- streams: all work is done when a call returns, so a missing synchronisation is not found;
- ComfyUI's asynchronous weight casting, pinned memory and DynamicVRAM, which are for CUDA only;
- asynchronous copies from ordinary memory, which CUDA stages first and which block when large;
- cudaMallocAsync and the caching allocator: no blocks of 512 bytes, no fragments, no workspaces of
  cuBLAS and cuDNN, so real peaks are somewhat higher;
- `torch.Generator(device)`, which it lacks: the pack draws on the CPU;
- autocast, flash and sage attention, TF32 and the rounding of a card's own kernels;
- text encoders: ComfyUI itself copies their tokens and outputs, so they are not counted.

Tests are collected for an accelerator only; `make test` runs them in separate processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.paths import DEVICE, use_comfyui
from sandbox.turns import leave_every

collect_ignore_glob = ["*"] if DEVICE == "cpu" else []

use_comfyui()

import folder_paths  # noqa: E402

from bench.engine.models import SIZES  # noqa: E402
from card.models import CardModels, open_models  # noqa: E402
from ziplora_core.comfy_adapter.model.memory_advice import unload_all_models  # noqa: E402
from ziplora_core.comfy_adapter.train import slider_effect  # noqa: E402


def pytest_itemcollected(item: pytest.Item) -> None:
    """Leave a test of many trainers with every fourth one: each takes a minute here."""
    leave_every(item, "name", 4)


@pytest.fixture(autouse=True)
def clean_comfyui(tmp_path: Path) -> Iterator[None]:
    """Keep one test's global state from the next."""
    before = folder_paths.get_output_directory()
    folder_paths.set_output_directory(str(tmp_path / "output"))
    yield
    folder_paths.set_output_directory(before)
    unload_all_models()


@pytest.fixture(autouse=True)
def short_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw a slider's effect in a few steps, as it takes most of a training's time here."""
    monkeypatch.setattr(slider_effect, "STEPS", 3)


@pytest.fixture(scope="module")
def models() -> CardModels:
    """The tiny SDXL on the device."""
    return open_models(SIZES["tiny"], drawn=True)
