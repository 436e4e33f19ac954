"""Gated branches on the layers of a loaded model, as forward hooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import comfy.utils
import torch
from comfy.patcher_extension import PatcherInjection
from torch import Tensor, nn

from ..branches import Branches, Gates
from ..observation import Observer


class BranchHooks:
    """Adds each branch's output to its layer's while `gates` are set; does nothing otherwise.

    Args:
        branches: by weight key.

    `observer` is told the weight key, a layer's input, its output without branches, and the layer.
    """

    def __init__(self, branches: Mapping[str, Branches]) -> None:
        self.branches = branches
        self.observer: Observer | None = None
        self.gates: Gates | None = None
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def injection(self) -> PatcherInjection:
        """The hooks, put on and taken off by the patcher."""
        return PatcherInjection(inject=self._inject, eject=self._eject)

    def _inject(self, patcher: Any) -> None:
        for key in self.branches:
            layer = comfy.utils.get_attr(patcher.model, key.removesuffix(".weight"))
            self._handles.append(layer.register_forward_hook(self._hook(key)))

    def _eject(self, _patcher: Any) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _hook(self, key: str) -> Callable[..., Tensor | None]:
        def add_branches(layer: nn.Module, inputs: tuple[Tensor, ...], out: Tensor):
            if self.gates is None:
                return None
            if self.observer is not None:
                self.observer(key, inputs[0], out, layer)
            return out + self.branches[key].delta(inputs[0], self.gates, layer)

        return add_branches


class SamplingHooks(BranchHooks):
    """Branches that are on the device, in the dtype the model computes in, while it is loaded."""

    def _inject(self, patcher: Any) -> None:
        dtype = patcher.model.get_dtype_inference()
        for branches in self.branches.values():
            branches.to(patcher.load_device, dtype)
            branches.fold(torch.ones(len(branches.ranks), branches.width))
        super()._inject(patcher)

    def _eject(self, patcher: Any) -> None:
        super()._eject(patcher)
        for branches in self.branches.values():
            branches.to(patcher.offload_device, branches.up.dtype)
