"""Activation checkpointing of a network's blocks, with their gates."""

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
from .in_place import on_copies


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
    blocks = blocks_of(network)
    for block in blocks:
        block.forward = _checkpointed(block, hooks, active)
    try:
        yield
    finally:
        for block in blocks:
            block.__dict__.pop("forward", None)


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """Return the blocks of a network: those of a UNet, or the members of its lists of blocks."""
    kinds = BasicTransformerBlock | ResBlock
    lists = [part for part in network.children() if isinstance(part, nn.ModuleList)]
    return [block for block in network.modules() if isinstance(block, kinds)] or [
        block for blocks in lists for block in blocks
    ]


def _checkpointed(
    block: nn.Module, hooks: BranchHooks, active: Callable[[], bool]
) -> Callable[..., Any]:
    forward, kept = block.forward, on_copies(block)

    def run(gates: Gates | None, *args: Any, **kwargs: Any) -> Any:
        outer, hooks.gates = hooks.gates, gates
        try:
            return kept(*args, **kwargs)
        finally:
            hooks.gates = outer

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if not (torch.is_grad_enabled() and active()):
            return forward(*args, **kwargs)
        return checkpoint(run, hooks.gates, *args, use_reentrant=False, **kwargs)

    return wrapped
