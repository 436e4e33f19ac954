"""How much memory a training needs, what it is given, and what it took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import psutil
import torch

from .training_model import TrainingModel

_GIB = 2**30
_ACTIVATIONS = {"fast": 5.8, "low": 0.8}
"""GiB per SDXL sample of 128 × 128 latents in bf16, at most: by the counting allocator on SDXL's
shapes (docs/BENCHMARKS.md, "Which card") a sample takes 5.2 to 5.7 with all activations, 0.1 to 0.8
with a block's."""

_DOUBLED = (
    "this card has no bfloat16: training computes in float32, in twice the memory and about twice "
    "the time"
)


@dataclass(frozen=True)
class MemoryPlan:
    """What a training will need, in bytes.

    Args:
        memory: `fast` keeps all activations, `low` a block's.
        automatic: chosen here, not by the person.
        model: the weights, and the frozen LoRAs beside them.
        learned: float32 parameters, gradients and optimiser state, and their cast copies.
        activations: of one pass.
        room: of the device, for activations.
        doubled: this card has no bfloat16, and gradients underflow in float16.
    """

    memory: str
    automatic: bool
    model: float
    learned: float
    activations: float
    room: float
    doubled: bool = False

    def __str__(self) -> str:
        total = self.model + self.learned + self.activations
        parts = (
            f"about {total / _GIB:.1f} GiB: model {self.model / _GIB:.1f}, "
            f"learned {self.learned / _GIB:.1f}, activations {self.activations / _GIB:.1f}"
        )
        chosen = f" (auto; room for activations: {self.room / _GIB:.1f} GiB)"
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
    """Set checkpointing by `memory`, and estimate what will be needed.

    `auto` looks at the device's whole memory less the model, not at what is free just now: the same
    machine makes the same choice, and the same seed the same file.

    Args:
        opened: the loaded model; its `checkpointing` is set.
        memory: `auto`, `fast` or `low`.
        batch: samples of each term in one pass.
        terms: of the loss; `low` takes them in turn.
        size: latent `(h, w)` of the largest.
        learned: the parameters.
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
    room = 0.8 * whole - model - held
    chosen = memory if memory != "auto" else ("fast" if needed["fast"] <= room else "low")
    opened.checkpointing = chosen == "low"
    doubled = opened.dtype == torch.float32 and comfy.model_management.should_use_fp16(
        opened.device  # pyright: ignore
    )
    return MemoryPlan(chosen, memory == "auto", model, held, needed[chosen], room, doubled)


def room_for_moments(opened: TrainingModel) -> float:
    """Say how many bytes the closed form may take on the model's device: half of what is free."""
    return comfy.model_management.get_free_memory(opened.device) / 2  # pyright: ignore


def counting_module(device: torch.device) -> Any | None:
    """PyTorch's module of a device that counts its bytes (CUDA, XPU), or None."""
    module = None if device.type == "cpu" else getattr(torch, device.type, None)
    return module if hasattr(module, "max_memory_allocated") else None


class PeakMemory:
    """The most memory that was in use: by a card that counts it, by the process elsewhere."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._process = psutil.Process()
        self.bytes = 0
        self._counting = counting_module(device)
        if self._counting:
            self._counting.reset_peak_memory_stats(device)

    def look(self) -> None:
        """Take note of what is in use now."""
        if self._counting:
            self.bytes = self._counting.max_memory_allocated(self.device)
        else:
            self.bytes = max(self.bytes, self._process.memory_info().rss)

    def __str__(self) -> str:
        where = "on the card" if self._counting else "of the whole process"
        return f"peak memory {where}: {self.bytes / _GIB:.1f} GiB"
