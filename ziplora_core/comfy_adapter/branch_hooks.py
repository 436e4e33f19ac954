"""Gated branches on the layers of a loaded model, as forward hooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import comfy.utils
import torch
from comfy.patcher_extension import PatcherInjection
from torch import Tensor, nn

from ..branches import Branches, Gates


class BranchHooks:
    """Adds each branch's output to its layer's while `gates` are set; does nothing otherwise.

    Args:
        branches: by weight key.
    """

    def __init__(self, branches: Mapping[str, Branches]) -> None:
        self.branches = branches
        self.gates: Gates | None = None
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def injection(self) -> PatcherInjection:
        """The hooks, put on and taken off by the patcher."""
        return PatcherInjection(inject=self._inject, eject=self._eject)

    def _inject(self, patcher: Any) -> None:
        for key, branches in self.branches.items():
            layer = comfy.utils.get_attr(patcher.model, key.removesuffix(".weight"))
            self._handles.append(layer.register_forward_hook(self._hook(branches)))

    def _eject(self, _patcher: Any) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _hook(self, branches: Branches) -> Callable[..., Tensor | None]:
        def add_branches(layer: nn.Module, inputs: tuple[Tensor, ...], out: Tensor):
            if self.gates is None:
                return None
            return out + branches.delta(inputs[0], self.gates, layer)

        return add_branches
