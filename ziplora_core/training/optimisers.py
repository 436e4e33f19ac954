"""Optimisers and learning-rate schedules by name."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _foreach_utils

from ..errors import problem
from .saved_state import Layout, layout_of

_SMALLEST_8BIT = 4096
"""Smallest number of elements for which bitsandbytes keeps 8-bit state."""


def learning_rate_factor(step: int, steps: int, schedule: str, warm_up: int) -> float:
    """Compute the factor of the learning rate at `step`: warm-up from zero, then the schedule."""
    if step < warm_up:
        return (step + 1) / (warm_up + 1)
    progress = (step - warm_up) / max(1, steps - warm_up)
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    return 1 - progress if schedule == "linear" else 1.0


def make_optimiser(
    name: str,
    parameters: Sequence[Tensor],
    learning_rates: Sequence[float],
    weight_decay: float = 0.01,
) -> torch.optim.Optimizer:
    """Build an optimiser; each group keeps its learning rate as `base`, for the schedule.

    Adam's eps is 1e-15, as coefficient gradients can be as small as 1e-9. AdamW has the usual
    settings for LoRAs: eps 1e-8 and, unless a method has its own, weight decay 0.01.

    Args:
        name: `adam`, `adamw`, `adamw_8bit` (Dettmers et al. 2021, arXiv:2110.02861) or `sgd`.
        parameters: float32 leaves.
        learning_rates: learning rate of each leaf.
        weight_decay: AdamW's weight decay.

    Raises:
        ZipLoRAError: `adamw_8bit` without bitsandbytes, or on a device where it does not work.
    """
    groups = [
        {"params": [leaf], "lr": rate, "base": rate}
        for leaf, rate in zip(parameters, learning_rates, strict=True)
    ]
    fused = {leaf.device.type for leaf in parameters} <= {*_fused_devices()}
    if name == "adam":
        return torch.optim.Adam(groups, eps=1e-15, fused=fused)
    if name == "adamw":
        return torch.optim.AdamW(groups, eps=1e-8, weight_decay=weight_decay, fused=fused)
    if name == "adamw_8bit":
        return _adamw_8bit(groups, weight_decay, parameters[0].device)
    return torch.optim.SGD(groups)


def state_layout(optimiser: torch.optim.Optimizer, number: int) -> dict[str, Layout | type]:
    """Return what an optimiser keeps of a parameter between two steps.

    It is found by an update of another optimiser of the same kind, on a tensor of the same form:
    names, shapes and dtypes differ between the kinds, and between releases of PyTorch.

    Args:
        optimiser: the optimiser, which is not changed.
        number: number of the parameter, which has a group of its own.
    """
    group = optimiser.param_groups[number]
    probe = torch.zeros_like(group["params"][0], requires_grad=True)
    probe.grad = torch.zeros_like(probe)
    other: Any = type(optimiser)
    update = other([{**group, "params": [probe]}], lr=group["base"])
    update.step()
    return {name: layout_of(value) for name, value in update.state[probe].items()}


def _fused_devices() -> list[str]:
    """List the device types with fused optimiser kernels, which need no temporary tensors.

    Where this version of PyTorch has no such list, the types that have always had them.
    """
    listed = getattr(_foreach_utils, "_get_fused_kernels_supported_devices", None)
    return listed() if listed else ["cpu", "cuda"]


def _adamw_8bit(
    groups: list[dict[str, object]], weight_decay: float, device: torch.device
) -> torch.optim.Optimizer:
    """Build bitsandbytes' AdamW8bit, after a trial update on this device.

    The supported devices differ between releases, and an unsupported one fails only at the first
    update.
    """
    try:
        library = importlib.import_module("bitsandbytes.optim")
        probe = torch.zeros(_SMALLEST_8BIT, device=device, requires_grad=True)
        probe.grad = torch.ones_like(probe)
        library.AdamW8bit([probe]).step()
    except (ImportError, OSError, RuntimeError, AttributeError, NameError) as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "bitsandbytes"
        found = "no bitsandbytes package in ComfyUI's Python"
        raise problem(
            "optimiser adamw_8bit",
            found=found if missing else f"a bitsandbytes that does not work on {device} ({error})",
            expected="bitsandbytes, which is not installed with this pack",
            advice="Choose adamw: for a LoRA of rank 64 it takes about 0.5 GB more. Or install "
            "the newest bitsandbytes with ComfyUI's Python and restart.",
        ) from error
    return library.AdamW8bit(groups, eps=1e-8, weight_decay=weight_decay)
