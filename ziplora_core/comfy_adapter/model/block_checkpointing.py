"""Activation checkpointing of the UNet's blocks, with their gates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from comfy.ldm.modules.attention import BasicTransformerBlock
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from torch import nn
from torch.utils.checkpoint import checkpoint

from ...training.branches import Gates
from .branch_hooks import BranchHooks


@contextmanager
def checkpointed_blocks(
    network: nn.Module, hooks: BranchHooks, active: Callable[[], bool]
) -> Iterator[None]:
    """Replace every block's forward; while `active`, it keeps only the block's input.

    The current gates are kept with it: the backward pass runs the block again, possibly after
    another prediction has set other gates.

    Args:
        network: the diffusion model.
        hooks: its branches, whose gates are restored for the second run.
        active: asked at every forward pass that has gradients.
    """
    kinds = BasicTransformerBlock | ResBlock
    blocks = [block for block in network.modules() if isinstance(block, kinds)]
    for block in blocks:
        block.forward = _checkpointed(block.forward, hooks, active)
    try:
        yield
    finally:
        for block in blocks:
            block.__dict__.pop("forward", None)


def _checkpointed(
    forward: Callable[..., Any], hooks: BranchHooks, active: Callable[[], bool]
) -> Callable[..., Any]:
    def run(gates: Gates | None, *args: Any, **kwargs: Any) -> Any:
        outer, hooks.gates = hooks.gates, gates
        try:
            return forward(*args, **kwargs)
        finally:
            hooks.gates = outer

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if not (torch.is_grad_enabled() and active()):
            return forward(*args, **kwargs)
        return checkpoint(run, hooks.gates, *args, use_reentrant=False, **kwargs)

    return wrapped
