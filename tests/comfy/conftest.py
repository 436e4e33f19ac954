"""Tests with ComfyUI in this process: its modules, no server, tiny models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.paths import use_comfyui

use_comfyui()

import comfy.model_management  # noqa: E402
import comfy.sd  # noqa: E402
import folder_paths  # noqa: E402
from comfy.model_patcher import ModelPatcher  # noqa: E402

from sandbox import tiny  # noqa: E402


@pytest.fixture(autouse=True)
def clean_comfyui(tmp_path: Path) -> Iterator[None]:
    """Keep one test's global state from the next: output folder, interrupt flag, loaded models."""
    before = folder_paths.get_output_directory()
    folder_paths.set_output_directory(str(tmp_path / "output"))
    yield
    folder_paths.set_output_directory(before)
    comfy.model_management.interrupt_current_processing(False)
    comfy.model_management.unload_all_models()


@pytest.fixture
def model() -> ModelPatcher:
    """A tiny SDXL of this test's own."""
    return tiny.tiny_sdxl()


@pytest.fixture
def clip() -> comfy.sd.CLIP:
    """Tiny text encoders of this test's own."""
    return tiny.tiny_clip()
