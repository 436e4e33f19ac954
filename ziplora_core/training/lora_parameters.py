"""The trainable factors of a LoRA, and their initialisation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..lora.factors import LoraFactors
from ..lora.svd import truncate
from .branches import Branches

Start = Callable[[int, int, int, torch.Generator], tuple[Tensor, Tensor]]
"""Initialises `down` and `up`, flat, given rank, fan_in, out and a generator."""


def at_the_model(rank: int, fan_in: int, out: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw `down` uniformly in ±1/√fan_in; `up` is zero, so training starts at the model itself.

    This is the initialisation of kohya and PEFT (Kaiming uniform, a = √5).
    """
    down = torch.empty(rank * fan_in).uniform_(-1, 1, generator=rng) / fan_in**0.5
    return down, torch.zeros(out * rank)


def beside_the_model(
    rank: int, fan_in: int, out: int, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw both from N(0, 1/rank²), as UnZipLoRA does: its importance depends on the update."""
    drawn = torch.randn(rank * (fan_in + out), generator=rng) / rank
    down, up = drawn.split([rank * fan_in, rank * out])
    return down, up


class LoRAParameters:
    """The trainable factors of a new LoRA.

        delta = alpha/rank · up @ down       (Hu et al. 2021, arXiv:2106.09685, eq. 3)

    All factors are stored in one flat float32 leaf, so that the optimiser makes one update for
    all layers and the cast to the compute dtype is one operation.

    Args:
        shapes: weight shape `(out, in, *k)` by module.
        rank: rank of every module; a narrower module gets its full width.
        alpha: alpha; the scale is `alpha / rank` everywhere, also in a narrower module.
        rng: generator of the initial factors.
        device: the leaf's device.
        start: initialisation of the factors.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        rank: int,
        alpha: float,
        rng: torch.Generator,
        device: torch.device | str = "cpu",
        start: Start = at_the_model,
    ) -> None:
        self.scale = alpha / rank
        self.shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
        drawn: list[Tensor] = []
        for name, (out, *inner) in shapes.items():
            fan_in = math.prod(inner)
            r = min(rank, full_width((out, *inner)))
            down, up = (r, *inner), (out, r, *(1,) * (len(inner) - 1))
            self.shapes[name] = (down, up)
            drawn += start(r, fan_in, out, rng)
        self.flat = torch.cat(drawn).to(device).requires_grad_()

    def factors(self, dtype: torch.dtype = torch.float32) -> dict[str, LoraFactors]:
        """Return differentiable views of the leaf as factors, cast to `dtype`."""
        return self._split(self.flat.to(dtype))

    def gradient(self) -> dict[str, LoraFactors]:
        """Return views of the leaf's gradient as the factors' gradients."""
        assert self.flat.grad is not None
        return self._split(self.flat.grad)

    def _split(self, flat: Tensor) -> dict[str, LoraFactors]:
        shapes = [shape for pair in self.shapes.values() for shape in pair]
        pieces = flat.split([math.prod(shape) for shape in shapes])
        views = iter(p.view(shape) for p, shape in zip(pieces, shapes, strict=True))
        return {
            name: LoraFactors(down, up, alpha=self.scale * len(down))
            for name, down, up in zip(self.shapes, views, views, strict=True)
        }

    def start_from(self, factors: Mapping[str, LoraFactors]) -> None:
        """Initialise with existing factors: the closest update of this rank, module by module.

        Modules without existing factors, and rows beyond their rank, keep the random values.
        """
        with torch.no_grad():
            for name, own in self.factors().items():
                if name in factors:
                    near = truncate(factors[name], own.rank).factors
                    own.down[: near.rank] = near.down
                    own.up[:, : near.rank] = near.up * (near.scale / self.scale)

    def detached(self) -> dict[str, LoraFactors]:
        """Return a copy of the factors on the CPU."""

        def copied(tensor: Tensor) -> Tensor:
            return tensor.detach().to("cpu", copy=True)

        return {
            name: LoraFactors(copied(f.down), copied(f.up), f.alpha)
            for name, f in self.factors().items()
        }


class LearnedLoRA:
    """A new LoRA beside the layers of one network.

    Args:
        parameters: the LoRA's factors.
    """

    def __init__(self, parameters: LoRAParameters) -> None:
        self.parameters = parameters
        with torch.no_grad():
            factors = parameters.factors()
            self.branches = {name: Branches([f]) for name, f in factors.items()}

    def by_weight(self, targets: Mapping[str, str]) -> dict[str, Branches]:
        """Return the branches by weight key; `targets` maps modules to keys."""
        return {targets[name]: branches for name, branches in self.branches.items()}

    def fold(self, dtype: torch.dtype = torch.float32) -> None:
        """Put the current factors into the branches, cast to `dtype`; gradients flow back."""
        for name, factors in self.parameters.factors(dtype).items():
            self.branches[name].set_factors([factors])


def full_width(shape: tuple[int, ...]) -> int:
    """Return the largest rank that a weight `(out, in, *k)` can have: min(out, in·k)."""
    return min(shape[0], math.prod(shape[1:]))
