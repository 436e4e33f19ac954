"""ComfyUI's own TrainLoraNode.

It trains every weight, bias and norm of the UNet and has no choice of layers, so it is compared
with our `layers=all`. For a batch of B it predicts B × B samples: every caption with every latent.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import comfy.utils
from comfy_extras.nodes_train import TrainLoraNode

from sandbox import tiny

from .task import Task


def train(task: Task, steps: int, on_step: Callable[[], None], rank: int) -> None:
    """Run the node, and time its steps by the progress bar."""
    inputs: dict[str, Any] = {
        "model": tiny.tiny_sdxl(),
        "latents": {"samples": task.samples()},
        "positive": task.conditioning(),
        "batch_size": task.batch,
        "grad_accumulation_steps": 1,
        "steps": steps,
        "learning_rate": 1e-4,
        "rank": rank,
        "optimizer": "AdamW",
        "loss_function": "MSE",
        "seed": 0,
        "training_dtype": "fp32",
        "lora_dtype": "fp32",
        "quantized_backward": False,
        "algorithm": "LoRA",
        "gradient_checkpointing": False,
        "checkpoint_depth": 1,
        "offloading": False,
        "existing_lora": "[None]",
        "bucket_mode": False,
        "bypass_mode": False,
    }
    comfy.utils.set_progress_bar_enabled(False)
    comfy.utils.set_progress_bar_global_hook(lambda *_progress, **_node: on_step())
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "In CPU autocast")
            TrainLoraNode.execute(**{name: [value] for name, value in inputs.items()})
    finally:
        comfy.utils.set_progress_bar_global_hook(None)
        comfy.utils.set_progress_bar_enabled(True)
