"""The pack's training nodes, with inputs so small that each takes about a second."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import folder_paths
import pytest
import torch
from comfy_api.latest import io
from torch import Tensor

from sandbox import tiny

from .. import helpers

SIDE, STEPS = 64, 2
TRAINERS = ("dreambooth", "words", "pictures", "unzip", "merge")
"""The trainers with steps; `closed_form` has none."""
EACH = [
    pytest.param(name, marks=pytest.mark.thorough) if name == "pictures" else name
    for name in TRAINERS
]
"""The same as parameters: both sliders run the same code."""
MODULES = {
    "dreambooth": ("dreambooth", "dreambooth", "TrainDreamBoothLoRA"),
    "words": ("sliders", "sliders.train", "TrainConceptSlider"),
    "pictures": ("sliders", "sliders.train", "TrainConceptSliderFromImages"),
    "unzip": ("unziplora", "unziplora.train", "UnZipLoRATrain"),
    "merge": ("ziplora", "ziplora", "ZipLoRAOptimize"),
    "closed_form": ("ziplora", "ziplora", "ZipLoRAOptimize"),
}


def pack_module(name: str) -> ModuleType:
    """Return a module of the pack as ComfyUI has imported it."""
    return sys.modules[f"ziplora.{name}"]


@dataclass
class Trained:
    """The output of a node."""

    loras: list[dict[str, Tensor]]
    report: str
    output: io.NodeOutput


class Trainer:
    """One training node in this process, with a server without clients."""

    def __init__(self, name: str) -> None:
        self.name = name
        session, node, node_id = MODULES[name]
        self.session = pack_module(f"ziplora_core.comfy_adapter.train.{session}")
        self.node = pack_module(f"nodes.{node}")
        hidden = {io.Hidden.unique_id: "7", io.Hidden.extra_pnginfo: None}
        kind = getattr(self.node, node_id)
        self.takes_lists = kind.GET_SCHEMA().is_input_list
        self.prepared = kind.PREPARE_CLASS_CLONE({"hidden_inputs": hidden})

    def run(self, saved: bool = True, **changed: Any) -> Trained:
        """Execute the node; `options` are TrainingOptions' fields, the others the node's own.

        With `saved`, its checkpoint is told that the result is in a file.
        """
        return self.execute(self.inputs(**changed), saved)

    def inputs(self, **changed: Any) -> dict[str, Any]:
        """Make the node's inputs; see `run`."""
        inputs = INPUTS[self.name]() | {"model": tiny.tiny_sdxl(), "seed": 0}
        options = {"sample_every": 0, "held_out_draws": 2, "checkpoint_every": 0}
        options |= changed.pop("options", {})
        inputs["options"] = pack_module("ziplora_core.training.options").TrainingOptions(**options)
        inputs |= changed
        if self.takes_lists:
            inputs = {k: v if isinstance(v, list) else [v] for k, v in inputs.items()}
        return inputs

    def execute(self, inputs: dict[str, Any], saved: bool = True) -> Trained:
        """Execute the node with inputs as `inputs` makes them; see `run`."""
        with torch.inference_mode():  # as ComfyUI runs nodes
            output = self.prepared.EXECUTE_NORMALIZED(**inputs)
        loras = [value for value in output.args if isinstance(value, dict) and _is_lora(value)]
        (report,) = (value for value in output.args if isinstance(value, str))
        for lora in loras if saved else []:
            pack_module("ziplora_core.training.checkpoint").mark_saved(lora, "a_file")
        return Trained(loras, report, output)

    def checkpoints(self) -> list[Path]:
        """Return the folders of all checkpoints."""
        root = Path(folder_paths.get_output_directory()) / "ziplora" / "checkpoints"
        return sorted(root.iterdir()) if root.exists() else []


def _is_lora(value: dict[str, Any]) -> bool:
    return any(str(key).endswith(".lora_up.weight") for key in value)


def picture(seed: int) -> Tensor:
    """Return a batch of one picture as from Load Image, with eight bits per channel."""
    return (helpers.noise(1, SIDE, SIDE, 3, seed=seed).sigmoid() * 255).round() / 255


def _small(rank: int = 4) -> dict[str, Any]:
    return {"rank": rank, "steps": STEPS, "resolution": SIDE, "memory": "fast"}


def _slider() -> dict[str, Any]:
    return {
        **_small(), "clip": tiny.tiny_clip(), "vae": tiny.tiny_vae(), "alpha": 4.0,
        "layers": "xattn_strict", "learning_rate": 1e-2,
    }  # fmt: skip


def _dreambooth() -> dict[str, Any]:
    return {
        **_small(), "clip": tiny.tiny_clip(), "vae": tiny.tiny_vae(), "images": [picture(1)],
        "prompt": "a photo of sks dog", "alpha": 4.0, "learning_rate": 1e-2,
    }  # fmt: skip


def _words() -> dict[str, Any]:
    words = {"target": "person", "positive": "old person", "negative": "young person"}
    return {**_slider(), **words}


def _pictures() -> dict[str, Any]:
    paired = pack_module("ziplora_core.comfy_adapter.train.slider_tasks").paired_pictures
    return {**_slider(), "pairs": [paired([picture(1)], [picture(2)], 1.0)]}


def _unzip() -> dict[str, Any]:
    return {
        **_small(), "clip": tiny.tiny_clip(), "vae": tiny.tiny_vae(), "image": [picture(1)],
        "prompt": "a monadikos cat in sketch style", "content_prompt": "a monadikos cat",
        "style_prompt": "a cat in sketch style", "sample_times": 1, "importance_samples": 1,
        "images_per_validation": False, "validation_steps": 1,
    }  # fmt: skip


def _merge() -> dict[str, Any]:
    content, style = helpers.prompts(tiny.tiny_clip())
    read = pack_module("ziplora_core.files").lora_from_tensors
    loras = [read(t, name=f"{n}") for n, t in enumerate(helpers.lora_tensors())]
    return {
        "pair": pack_module("ziplora_core.lora.pair").LoRAPair(*loras),
        "content_conditioning": content, "style_conditioning": style,
        "content_latent": {"samples": 7.0 * helpers.noise(1, 4, 8, 8, seed=1)},
        "style_latent": {"samples": 7.0 * helpers.noise(1, 4, 8, 8, seed=2)},
        "width": SIDE, "height": SIDE, "steps": STEPS, "memory": "fast", "solver": "adam",
    }  # fmt: skip


def _closed_form() -> dict[str, Any]:
    return {**_merge(), "solver": "closed_form", "passes": 1, "calibration_states": 2}


INPUTS: dict[str, Callable[[], dict[str, Any]]] = {
    "dreambooth": _dreambooth, "words": _words, "pictures": _pictures, "unzip": _unzip,
    "merge": _merge, "closed_form": _closed_form,
}  # fmt: skip
