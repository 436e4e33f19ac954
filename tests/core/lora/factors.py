"""Random factors and a toy model for the core's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ziplora_core.lora.factors import LoRA, LoraFactors
from ziplora_core.training.activations import ActivationRecorder
from ziplora_core.training.branches import Branches, Gates
from ziplora_core.training.interface import TrainingRecord


def random_factors(
    rank: int,
    width: int = 6,
    height: int = 5,
    kernel: int = 0,
    alpha: float | None = None,
    seed: int = 0,
) -> LoraFactors:
    """Draw factors of a linear (`kernel` 0) or of a `kernel` × `kernel` convolution."""
    rng = torch.Generator().manual_seed(seed)
    taps, ones = (kernel, kernel) if kernel else (), (1, 1) if kernel else ()
    down = torch.randn(rank, width, *taps, generator=rng)
    return LoraFactors(down, torch.randn(height, rank, *ones, generator=rng), alpha)


class NoFloat64(TorchDispatchMode):
    """A device that knows no float64, as Apple's: to make such a tensor is an error."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple) else (made,):
            if isinstance(tensor, Tensor) and tensor.dtype == torch.float64:
                raise TypeError(f"this device has no float64, which {func} makes")
        return made


def exported(task: Any) -> Callable[[TrainingRecord], LoRA]:
    """The LoRA that the loop keeps of a task with factors."""
    return lambda _record: LoRA("so far", task.factors())


class ToyModel:
    """Two linears with branches, a nonlinearity between them: small enough to check by hand.

    The latents are `(b, width, 1, 1)`; `conditioning` is added to them.
    """

    def __init__(self, branches: Mapping[str, Branches], width: int) -> None:
        rng = torch.Generator().manual_seed(7)
        self.branches = branches
        self.layers = {name: nn.Linear(width, width, bias=False) for name in branches}
        for layer in self.layers.values():
            layer.weight = nn.Parameter(
                torch.randn(width, width, generator=rng) / width**0.5, requires_grad=False
            )
        self.checkpointing = False
        self.calls: list[int] = []
        self.recorder: ActivationRecorder | None = None

    def denoise(
        self, x: Tensor, sigma: Tensor, conditioning: Sequence[Tensor], gates: Gates | None
    ) -> Tensor:
        self.calls.append(len(x))
        h = x.flatten(1) / (1 + sigma[:, None] ** 2) ** 0.5 + torch.stack(list(conditioning))
        for name, layer in self.layers.items():
            out = layer(h)
            if self.recorder:
                self.recorder(name, h, out, layer)
            added = self.branches[name].delta(h, gates, layer) if gates else 0.0
            h = torch.tanh(out + added)
        return h.view_as(x)

    @contextmanager
    def recording(self, recorder: ActivationRecorder) -> Iterator[None]:
        self.recorder = recorder
        yield
        self.recorder = None
