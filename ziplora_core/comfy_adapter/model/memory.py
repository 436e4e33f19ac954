"""The memory of a training: estimate, choice of checkpointing, budget and measured peak."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import psutil
import torch

from ...files.base_model import SDXL
from .family import family_of
from .training_model import TrainingModel

_GIB = 2**30
_ACTIVATIONS = {"fast": 5.8, "low": 0.8}
"""Upper bounds in GiB for an SDXL sample of 128 × 128 latents in bf16. Measured by the counting
allocator on SDXL's shapes (docs/BENCHMARKS.md, "Which card"): 5.2 to 5.7 with all activations, 0.1
to 0.8 with those of one block."""

_DOUBLED = (
    "this card has no bfloat16: training computes in float32, in twice the memory and about twice "
    "the time"
)


@dataclass(frozen=True)
class MemoryPlan:
    """The estimated memory of a training, in bytes.

    Args:
        memory: `fast` keeps all activations, `low` those of one block.
        automatic: whether `memory` was chosen here, not by the user.
        model: bytes of the weights and of the frozen LoRAs.
        learned: bytes of float32 parameters, gradients and optimiser state, and of cast copies.
        activations: bytes of one pass's activations; None where they are not known.
        budget: bytes that the device has for activations.
        doubled: whether training is in float32 because the card has no bfloat16; in float16,
            gradients underflow.
    """

    memory: str
    automatic: bool
    model: float
    learned: float
    activations: float | None
    budget: float
    doubled: bool = False

    def __str__(self) -> str:
        total = self.model + self.learned + (self.activations or 0)
        seen = "unknown" if self.activations is None else f"{self.activations / _GIB:.1f}"
        parts = (
            f"about {total / _GIB:.1f} GiB: model {self.model / _GIB:.1f}, "
            f"learned {self.learned / _GIB:.1f}, activations {seen}"
        )
        chosen = f" (auto; room for activations: {self.budget / _GIB:.1f} GiB)"
        plan = f"memory={self.memory}{chosen if self.automatic else ''}, estimated {parts}"
        return f"{plan}; {_DOUBLED}" if self.doubled else plan


def plan_memory(
    opened: TrainingModel,
    memory: str,
    batch: int,
    terms: int,
    size: Sequence[int],
    learned: Sequence[torch.Tensor],
    frozen: int = 0,
) -> MemoryPlan:
    """Set checkpointing by `memory`, and estimate the memory needed.

    `auto` compares with the device's whole memory less the model, not with the memory that is free
    at the moment. So the same machine makes the same choice, and the same seed gives the same file.
    On other families than SDXL, whose activations were not measured, it is `low`.

    Args:
        opened: the loaded model, whose `checkpointing` is set.
        memory: `auto`, `fast` or `low`.
        batch: samples of each term in one pass.
        terms: number of terms of the loss; `low` computes them one after the other.
        size: height and width of the largest latent.
        learned: the trained parameters.
        frozen: bytes of LoRAs that are not trained.
    """
    itemsize = opened.dtype.itemsize
    model = float(sum(p.model_size() for p in opened.patchers) + frozen)
    copies = 2 * itemsize if itemsize < 4 else 0  # cast factors, and their gradients
    held = sum(p.numel() for p in learned) * (4 + 4 + 8 + copies)
    share = batch * (size[0] * size[1] / 128**2) * itemsize / 2 * _GIB
    needed = {
        "fast": terms * share * _ACTIVATIONS["fast"] + opened.cast_bytes,
        "low": share * _ACTIVATIONS["low"],
    }
    whole = float(comfy.model_management.get_total_memory(opened.device))  # pyright: ignore
    budget = 0.8 * whole - model - held
    measured = family_of(opened.model).name == SDXL
    fits = measured and needed["fast"] <= budget
    chosen = memory if memory != "auto" else ("fast" if fits else "low")
    opened.checkpointing = chosen == "low"
    doubled = opened.dtype == torch.float32 and comfy.model_management.should_use_fp16(
        opened.device  # pyright: ignore
    )
    activations = needed[chosen] if measured else None
    return MemoryPlan(chosen, memory == "auto", model, held, activations, budget, doubled)


def moments_budget(opened: TrainingModel) -> float:
    """Return the closed form's budget in bytes: half of the free memory of the model's device."""
    return comfy.model_management.get_free_memory(opened.device) / 2  # pyright: ignore


def counting_module(device: torch.device) -> Any | None:
    """Return PyTorch's module of a device whose allocator counts bytes (CUDA, XPU), or None."""
    module = None if device.type == "cpu" else getattr(torch, device.type, None)
    return module if hasattr(module, "max_memory_allocated") else None


class PeakMemory:
    """The peak memory: of the card if its allocator counts bytes, else of the process."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._process = psutil.Process()
        self.bytes = 0
        self._counting = counting_module(device)
        if self._counting:
            self._counting.reset_peak_memory_stats(device)

    def look(self) -> None:
        """Update the peak."""
        if self._counting:
            self.bytes = self._counting.max_memory_allocated(self.device)
        else:
            self.bytes = max(self.bytes, self._process.memory_info().rss)

    def __str__(self) -> str:
        where = "on the card" if self._counting else "of the whole process"
        return f"peak memory {where}: {self.bytes / _GIB:.1f} GiB"
