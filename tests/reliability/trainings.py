"""The nodes under test, in this process: tiny models, no window, their own functions.

Trainings are those of tests/comfy; beside them, the two tools that draw with a pair of LoRAs.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.paths import ROOT, use_comfyui

from .foreign import tests_module

TRAININGS = {
    "merge": "ZipLoRA Optimize, adam",
    "closed_form": "ZipLoRA Optimize, closed form",
    "dreambooth": "Train DreamBooth LoRA",
    "words": "Train Concept Slider",
    "pictures": "Train Slider from Images",
    "unzip": "UnZipLoRA Train",
}
TOOLS = {"find": "Find the Merge", "judge": "Judge"}
STEPS = 3
SHORTER = {
    "ziplora_core.sliders.text_objective": {"DENOISING_STEPS": 3},
    "ziplora_core.comfy_adapter.train.sliders": {"PICTURES": 1},
    "ziplora_core.comfy_adapter.train.slider_effect": {"STEPS": 2},
    "ziplora_core.comfy_adapter.data.samples": {"STEPS": 2},
    "ziplora_core.comfy_adapter.train.unziplora": {"STEPS": 2},
    "ziplora_core.comfy_adapter.tools.find_merge": {"CALIBRATION_PICTURES": 2, "DRAWS": 1},
}
"""Denoising steps and pictures, which take most of the time and are the same code each time."""


@dataclass(frozen=True)
class Made:
    """The result of a run: tensors by name, and its report."""

    tensors: dict[str, Any]
    report: str


@dataclass(frozen=True)
class Subject:
    """A node with its inputs.

    Args:
        name: name of the node.
        models: the MODEL, CLIP and VAE that it uses, which are to stay as they are.
        run: runs it once.
        resumes: whether it has checkpoints.
    """

    name: str
    models: dict[str, Any]
    run: Callable[[], Made]
    resumes: bool


def load_pack() -> None:
    """Import the pack as ComfyUI does, with short drawings."""
    use_comfyui()
    sys.path.append(str(ROOT))
    _import("ziplora", ROOT)
    for name, constants in SHORTER.items():
        for module in (f"ziplora.{name}", name):  # as ComfyUI imports it, and as tests/comfy does
            vars(importlib.import_module(module)).update(constants)


def _import(name: str, folder: Path) -> None:
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


def make_server(loop: asyncio.AbstractEventLoop, user: Path) -> None:
    """Make ComfyUI's server object, whose messages go to `loop` and which is never started."""
    import folder_paths
    from server import PromptServer

    folder_paths.set_user_directory(str(user))
    PromptServer(loop)


def open_subject(name: str) -> Subject:
    """Make a node's models and inputs."""
    from sandbox import tiny

    models = {"model": tiny.tiny_sdxl(), "clip": tiny.tiny_clip(), "vae": tiny.tiny_vae()}
    if name in TOOLS:
        return Subject(TOOLS[name], models, _tool(name, **models), resumes=False)
    trainer = tests_module("comfy", "train.training_nodes").Trainer(name)
    inputs = trainer.inputs(options={"checkpoint_every": 1, "sample_every": 2}, steps=STEPS)
    own = {key: [value] if trainer.takes_lists else value for key, value in models.items()}
    inputs |= {key: value for key, value in own.items() if key in inputs}

    def run() -> Made:
        trained = trainer.execute(inputs)
        tensors = {f"{n} {k}": t for n, lora in enumerate(trained.loras) for k, t in lora.items()}
        return Made(tensors, trained.report)

    return Subject(TRAININGS[name], models, run, resumes=name != "closed_form")


def _tool(name: str, model: Any, clip: Any, vae: Any) -> Callable[[], Made]:
    """Make a function that searches strengths or judges two pictures."""
    import torch

    tests = tests_module("comfy", f"tools.test_{'find_merge' if name == 'find' else name}")
    if name == "find":
        inputs = tests.inputs_of(model, clip, strengths=tests.FOUR[:2], pictures=2)
    else:
        pair = tests.helpers.lora_pair()
        inputs = tests.JudgeInputs(
            [tests.helpers.noise(64, 64, 3, seed=n).sigmoid() for n in range(2)],
            sampling=tests.sampling(clip), pair=pair, calibration_pictures=2, draws=2,
        )  # fmt: skip

    @torch.inference_mode()
    def run() -> Made:
        if name == "find":
            found = tests.find_merge(model, vae, inputs)
            scores = {str(row.strengths): row.trial.scores for row in found.merges.rows}
        else:
            found = tests.judge(model, vae, inputs)
            scores = {"judged": found.pictures}
        numbers = {k: torch.tensor([[s.subject, s.style] for s in v]) for k, v in scores.items()}
        return Made(numbers, found.report)

    return run
