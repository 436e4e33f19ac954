"""Muon, which trains the matrices of hidden layers in far fewer steps than AdamW."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
DECAY = 0.01
RMS = 0.2
"""Root mean square of a step's entries, as AdamW's have it."""
QUINTIC = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Step along the nearest semi-orthogonal matrix to the momentum: steepest in spectral norm.

    Jordan 2024, kellerjordan.github.io/posts/muon; the length of a step as in Liu et al. 2025,
    arXiv:2502.16982, eq. 4. PyTorch's Muon takes one matrix after the other; here all of one shape
    go together, in a third of the time. A convolution's weight is a matrix of a row an output
    channel.

    Args:
        parameters: of two or more dimensions.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        super().__init__(parameters, {"lr": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Step all parameters."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                by_shape.setdefault(parameter.flatten(1).shape, []).append(parameter)
            for shape, parameters in by_shape.items():
                steps = orthogonal(torch.stack([self._momentum(p) for p in parameters]))
                length = group["lr"] * RMS * max(shape) ** 0.5
                for parameter, step in zip(parameters, steps, strict=True):
                    parameter.mul_(1 - group["lr"] * DECAY)
                    parameter.add_(step.view_as(parameter), alpha=-length)

    def _momentum(self, parameter: nn.Parameter) -> Tensor:
        """Follow the gradient, and look one step ahead (Nesterov)."""
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(parameter.grad, 1 - MOMENTUM)
        return parameter.grad.lerp(state["momentum"], MOMENTUM).flatten(1)


def orthogonal(matrices: Tensor) -> Tensor:
    """Bring the singular values of `(n, rows, columns)` near 1 by Newton's and Schulz's iteration.

    In bfloat16, as it needs no more; singular values end between about 0.7 and 1.2.
    """
    x = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).bfloat16()
    a, b, c = QUINTIC
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    x = x if matrices.shape[1] <= matrices.shape[2] else x.mT
    return x.to(matrices.dtype)
