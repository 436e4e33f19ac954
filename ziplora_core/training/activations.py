"""Recording of layer inputs and outputs, for methods that need activations, not gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .branches import CONVOLUTIONS, Branches
from .noisy_samples import Denoise

TOKENS = 1024
"""Largest number of positions that one layer records per sample; more are thinned out evenly."""

ActivationRecorder = Callable[[str, Tensor, Tensor, nn.Module], None]
"""Called with a module's name, its input, its output without branches, and the layer."""


class RecordableModel(Protocol):
    """A model whose layer inputs and outputs can be recorded."""

    denoise: Denoise

    @property
    def branches(self) -> Mapping[str, Branches]:
        """The branches, by the model's name for the module."""
        ...

    def recording(self, recorder: ActivationRecorder) -> AbstractContextManager[None]:
        """Return a context in which every layer call is passed to the recorder."""
        ...


def tokens(x: Tensor, layer: nn.Module) -> Tensor:
    """Return a layer's input as `(sample, position, in · taps)`, float32, thinned to TOKENS.

    Args:
        x: the input `(sample, …, in)` of a linear, or `(sample, in, h, w)` of a convolution.
        layer: the layer.
    """
    if isinstance(layer, nn.Conv2d):
        assert not isinstance(layer.padding, str)
        shape = (layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        samples = x.split(1)  # one by one: all patches of a picture are nine times its size
        return torch.cat([_thinned(F.unfold(one, *shape).transpose(1, 2)) for one in samples])
    return _thinned(x)


def places(out: Tensor, layer: nn.Module) -> Tensor:
    """Return a layer's output as `(sample, position, out)`, at the same positions as `tokens`."""
    return _thinned(out.flatten(2).mT if isinstance(layer, CONVOLUTIONS) else out)


def _thinned(x: Tensor) -> Tensor:
    if x.ndim == 2:
        return x.float()[:, None]
    x = x.flatten(1, -2)
    step = -(-x.shape[1] // TOKENS) | 1  # odd: an even step would stay in a few columns
    return (x[:, ::step] if x.shape[1] > TOKENS else x).float()
