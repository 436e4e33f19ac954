"""A backward pass through blocks that write into their inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from comfy.ldm.flux.layers import DoubleStreamBlock, SingleStreamBlock
from torch import Tensor, nn

_BLOCKS = DoubleStreamBlock, SingleStreamBlock
"""FLUX's blocks, which other families have too. They add to a stream in place after its norm has
read it, and the norm's backward pass needs it as it was."""


@contextmanager
def norms_on_copies(network: nn.Module) -> Iterator[None]:
    """Have the norms of such blocks read copies of their inputs, where there are gradients."""
    blocks = [block for block in network.modules() if isinstance(block, _BLOCKS)]
    parts = [part for block in blocks for part in block.children()]
    norms = [part for part in parts if isinstance(part, nn.LayerNorm)]
    handles = [norm.register_forward_pre_hook(_copy_learned) for norm in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def on_copies(block: nn.Module) -> Callable[..., Any]:
    """Return a block's forward, which leaves its inputs as they are: they are kept to run it again.

    Only such blocks get copies.
    """
    forward = block.forward
    if not isinstance(block, _BLOCKS):
        return forward

    def run(*args: Any, **kwargs: Any) -> Any:
        return forward(*map(_copy, args), **{key: _copy(value) for key, value in kwargs.items()})

    return run


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _copy_learned(_norm: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x.clone() if x.requires_grad else x for x in inputs)
