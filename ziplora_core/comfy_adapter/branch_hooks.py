"""Gated branches on the layers of a loaded model, as forward hooks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from weakref import WeakKeyDictionary, finalize

import comfy.model_management
import comfy.utils
import torch
from comfy.patcher_extension import CallbacksMP, PatcherInjection, WrappersMP
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..branches import Branches, Gates
from ..errors import problem
from ..observation import Observer


class BranchHooks:
    """Adds each branch's output to its layer's while `gates` are set; does nothing otherwise.

    Args:
        branches: by weight key.

    `observer` is told the weight key, a layer's input, its output without branches, and the layer.

    A patcher's clones have the same injection, and may say that they are injected without ever
    having been: each takes off what it has put on. A patcher that is dropped takes it off, too.
    """

    def __init__(self, branches: Mapping[str, Branches]) -> None:
        self.branches = branches
        self.observer: Observer | None = None
        self.gates: Gates | None = None
        self._put_on: WeakKeyDictionary[Any, finalize[..., Any]] = WeakKeyDictionary()

    def injection(self) -> PatcherInjection:
        """The hooks, put on and taken off by the patcher."""
        return PatcherInjection(inject=self._inject, eject=self._eject)

    def _inject(self, patcher: Any) -> None:
        handles = []
        for key in self.branches:
            layer = comfy.utils.get_attr(patcher.model, key.removesuffix(".weight"))
            handles.append(layer.register_forward_hook(self._hook(key)))
        self._put_on[patcher] = finalize(patcher, _remove, handles)

    def _eject(self, patcher: Any) -> None:
        if take_off := self._put_on.pop(patcher, None):
            take_off()

    def _hook(self, key: str) -> Callable[..., Tensor | None]:
        def add_branches(layer: nn.Module, inputs: tuple[Tensor, ...], out: Tensor):
            if self.gates is None:
                return None
            if self.observer is not None:
                self.observer(key, inputs[0], out, layer)
            return out + self.branches[key].delta(inputs[0], self.gates, layer)

        return add_branches


class SamplingHooks(BranchHooks):
    """Branches that are on the device, in the dtype the model computes in, while it is loaded.

    ComfyUI takes injections off and puts them on again several times a run: the branches stay on
    the device until it detaches the model.
    """

    def __init__(self, branches: Mapping[str, Branches]) -> None:
        super().__init__(branches)
        self._own, self._place = branches, None

    def put_on(self, patcher: Any, key: str) -> None:
        """Hang them on a clone of a MODEL, under a key of their own."""
        patcher.set_injections(key, [self.injection()])
        patcher.add_callback_with_key(CallbacksMP.ON_DETACH, key, self._unloaded)

    def _inject(self, patcher: Any) -> None:
        refuse_several_devices(patcher)
        place = patcher.load_device, patcher.model.get_dtype_inference()
        if place != self._place:
            non_blocking = comfy.model_management.device_supports_non_blocking(place[0])
            self.branches = {key: b.on(*place, non_blocking) for key, b in self._own.items()}
            self._place = place
        super()._inject(patcher)

    def _unloaded(self, *_: Any) -> None:
        if not self._put_on:  # by another patcher, which is still loaded
            self.branches, self._place = self._own, None


def uncompiled() -> AbstractContextManager[Any]:
    """Have PyTorch run modules as they are, compiled or not: around a call with open branches.

    Code that `torch.compile` has made of a layer does not look whether the layer has got a hook
    since (`torch._dynamo.config.skip_nnmodule_hook_guards`), and it is shared by all compiled
    copies of that layer.
    """
    if "torch._dynamo" not in sys.modules or not hasattr(torch.compiler, "set_stance"):
        return nullcontext()  # nothing is compiled; or PyTorch is older than 2.6
    return torch.compiler.set_stance("force_eager")


def compiled_lines(model: Any) -> list[str]:
    """Say what becomes of a MODEL's compilation; nothing where it is not compiled."""
    compiled = COMPILE_KEY in model.wrappers.get(WrappersMP.APPLY_MODEL, {})
    compiled |= any(hasattr(patch, "_orig_mod") for patch in model.object_patches.values())
    rests = "torch.compile rests while this is on the MODEL: steps take as long as without it"
    return [rests] if compiled else []


def refuse_several_devices(model: Any) -> None:
    """Refuse a MODEL that runs on several devices at once: branches are on one.

    Raises:
        ZipLoRAError: it has clones on other devices.
    """
    if model.get_additional_models_with_key("multigpu"):
        raise problem(
            "model",
            found="a MODEL on several devices (MultiGPU CFG Split)",
            expected="a MODEL on one device",
            advice="Take MultiGPU CFG Split out: sliders and Apply UnZipLoRA do not go with it.",
        )


def _remove(handles: Sequence[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()
