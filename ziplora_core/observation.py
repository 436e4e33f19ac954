"""What the layers of a model see, for methods that look at it instead of asking for gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .branches import Branches
from .states import Denoise

TOKENS = 1024
"""Places of a picture that one layer looks at; more are thinned out evenly."""

Observer = Callable[[str, Tensor, Tensor, nn.Module], None]
"""Told, by module: a layer's input, its output without branches, and the layer."""


class ObservableModel(Protocol):
    """A model that shows what goes into its layers and comes out of them."""

    denoise: Denoise

    @property
    def branches(self) -> Mapping[str, Branches]:
        """By the model's name for a module."""
        ...

    def observed(self, observer: Observer) -> AbstractContextManager[None]:
        """Tell the observer."""
        ...


def tokens(x: Tensor, layer: nn.Module) -> Tensor:
    """Take a layer's input as `(sample, place, in · taps)`, float32, at most TOKENS places."""
    if isinstance(layer, nn.Conv2d):
        assert not isinstance(layer.padding, str)
        shape = (layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        samples = x.split(1)  # in turn: all patches of a picture are nine times its size
        return torch.cat([_thinned(F.unfold(one, *shape).transpose(1, 2)) for one in samples])
    return _thinned(x)


def places(out: Tensor) -> Tensor:
    """Take a layer's output as `(sample, place, out)`, at the same places."""
    return _thinned(out.flatten(2).transpose(1, 2) if out.ndim == 4 else out)


def _thinned(x: Tensor) -> Tensor:
    if x.ndim == 2:
        return x.float()[:, None]
    step = -(-x.shape[1] // TOKENS) | 1  # odd: an even one would keep to a few columns
    return (x[:, ::step] if x.shape[1] > TOKENS else x).float()
