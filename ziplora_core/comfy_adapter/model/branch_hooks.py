"""Gated branches on the layers of a loaded model, as forward hooks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from weakref import WeakKeyDictionary, finalize

import torch
from comfy.patcher_extension import PatcherInjection, WrappersMP
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ...errors import problem
from ...training.activations import ActivationRecorder
from ...training.branches import Branches, Gates


class BranchHooks:
    """Forward hooks that add each branch's output to its layer's output while `gates` are set.

    Args:
        branches: branches by weight key.

    `recorder`, an activation recorder, is called with the weight key, the layer's input, its output
    without branches, and the layer.

    Clones of a patcher share its injection and may be marked as injected without having been. So
    each patcher removes only its own hooks, also when it is garbage-collected.
    """

    def __init__(self, branches: Mapping[str, Branches]) -> None:
        self.branches = branches
        self.recorder: ActivationRecorder | None = None
        self.gates: Gates | None = None
        self._put_on: WeakKeyDictionary[Any, finalize[..., Any]] = WeakKeyDictionary()

    def injection(self) -> PatcherInjection:
        """Return the injection with which a patcher adds and removes the hooks."""
        return PatcherInjection(inject=self._inject, eject=self._eject)

    def _inject(self, patcher: Any) -> None:
        handles = []
        for key in self.branches:
            layer = patcher.model.get_submodule(key.removesuffix(".weight"))
            handles.append(layer.register_forward_hook(self._hook(key)))
        self._put_on[patcher] = finalize(patcher, _remove, handles)

    def _eject(self, patcher: Any) -> None:
        if take_off := self._put_on.pop(patcher, None):
            take_off()

    def _hook(self, key: str) -> Callable[..., Tensor | None]:
        def add_branches(layer: nn.Module, inputs: tuple[Tensor, ...], out: Tensor):
            if self.gates is None:
                return None
            if self.recorder is not None:
                self.recorder(key, inputs[0], out, layer)
            return out + self.branches[key].delta(inputs[0], self.gates, layer)

        return add_branches


def uncompiled() -> AbstractContextManager[Any]:
    """Return a context in which PyTorch runs modules uncompiled, for calls with branch hooks.

    The code that `torch.compile` makes of a layer ignores hooks that the layer gets later
    (`torch._dynamo.config.skip_nnmodule_hook_guards`), and all compiled copies of the layer share
    that code.
    """
    if "torch._dynamo" not in sys.modules or not hasattr(torch.compiler, "set_stance"):
        return nullcontext()  # nothing is compiled; or PyTorch is older than 2.6
    return torch.compiler.set_stance("force_eager")


def compiled_lines(model: Any) -> list[str]:
    """Return the report line on torch.compile if a MODEL is compiled, else no lines."""
    compiled = COMPILE_KEY in model.wrappers.get(WrappersMP.APPLY_MODEL, {})
    compiled |= any(hasattr(patch, "_orig_mod") for patch in model.object_patches.values())
    line = "torch.compile is inactive while this is on the MODEL: steps take as long as without it"
    return [line] if compiled else []


def refuse_several_devices(model: Any) -> None:
    """Refuse a MODEL that runs on several devices at once, as branches are on one device only.

    Raises:
        ZipLoRAError: the MODEL has clones on other devices.
    """
    if model.get_additional_models_with_key("multigpu"):
        raise problem(
            "model",
            found="a MODEL on several devices (MultiGPU CFG Split)",
            expected="a MODEL on one device",
            advice="Remove MultiGPU CFG Split: sliders and Apply UnZipLoRA do not work with it.",
        )


def _remove(handles: Sequence[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()
