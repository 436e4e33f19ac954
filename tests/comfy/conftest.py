"""Fixtures of the tests with ComfyUI in this process: its modules, no server, tiny models."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from sandbox.paths import use_comfyui
from sandbox.turns import leave_every

use_comfyui()

import comfy.model_management  # noqa: E402
import comfy.sd  # noqa: E402
import folder_paths  # noqa: E402
from comfy.model_patcher import ModelPatcher  # noqa: E402

from sandbox import tiny  # noqa: E402
from ziplora_core.comfy_adapter.model.memory_advice import unload_all_models  # noqa: E402

from .train.training_nodes import Trainer, pack_module  # noqa: E402


def pytest_itemcollected(item: pytest.Item) -> None:
    """Leave a test of many trainers with every third one, as they share their loop and its guards,
    and one of all families of models with every second one."""
    leave_every(item, "trainer", 3)
    leave_every(item, "family", 2)


@pytest.fixture(autouse=True)
def clean_comfyui(tmp_path: Path) -> Iterator[None]:
    """Reset global state after each test: output folder, interrupt flag, loaded models."""
    before = folder_paths.get_output_directory()
    folder_paths.set_output_directory(str(tmp_path / "output"))
    yield
    folder_paths.set_output_directory(before)
    comfy.model_management.interrupt_current_processing(False)
    unload_all_models()


@pytest.fixture
def model() -> ModelPatcher:
    """A tiny SDXL for one test."""
    return tiny.tiny_sdxl()


@pytest.fixture
def clip() -> comfy.sd.CLIP:
    """Tiny text encoders for one test."""
    return tiny.tiny_clip()


@pytest.fixture(scope="session")
def prompt_server(pack: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> None:
    """ComfyUI's own server object, which accepts messages and is never started."""
    from server import PromptServer

    before = folder_paths.get_user_directory()
    folder_paths.set_user_directory(str(tmp_path_factory.mktemp("user")))
    level = logging.getLogger().level
    PromptServer(asyncio.new_event_loop())
    logging.getLogger().setLevel(level)
    folder_paths.set_user_directory(before)


@pytest.fixture
def short_effect(prompt_server: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw effects, samples and trajectories in a few steps; other tests check them."""
    monkeypatch.setattr(pack_module("ziplora_core.sliders.text_objective"), "DENOISING_STEPS", 4)
    adapter = "ziplora_core.comfy_adapter"
    monkeypatch.setattr(pack_module(f"{adapter}.train.sliders"), "PICTURES", 1)
    for name in ("train.slider_effect", "data.samples", "train.unziplora"):
        monkeypatch.setattr(pack_module(f"{adapter}.{name}"), "STEPS", 2)


@pytest.fixture
def trainer(request: pytest.FixtureRequest, short_effect: None) -> Trainer:
    """The node that a test names by `@pytest.mark.parametrize("trainer", …, indirect=True)`."""
    return Trainer(request.param)
