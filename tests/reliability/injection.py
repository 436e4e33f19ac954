"""Faults from outside: hooks that PyTorch, Python and ComfyUI offer, signals and full disks."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

LAYER, BEFORE_UPDATE, AFTER_UPDATE = "layer", "before an update", "after an update"
MESSAGE, BAR, FILE = "message to the page", "progress bar", "file"

OUT_OF_MEMORY, ERROR, CANCEL, KILL = "out of memory", "exception", "cancel", "kill -9"
NAN, NAN_GRADIENT = "NaN in a prediction", "NaN in a gradient"
BACKWARD_OUT_OF_MEMORY = "out of memory in a backward pass"
FULL_DISK, DISK_ERROR, REMOVED = "full disk", "write error", "checkpoints removed"


class FaultError(RuntimeError):
    """The injected exception."""


@dataclass(frozen=True)
class Fault:
    """One fault: what happens, at which kind of place, at its n-th time from 0."""

    kind: str
    place: str
    at: int

    def __str__(self) -> str:
        return f"{self.kind} at {self.place} {self.at}"


class Injector:
    """Counts the places that a run passes, and lets a fault happen at one of them.

    A place is the end of a layer's forward pass in any model, an update of the optimiser, a message
    to the page, a move of the progress bar, or a file in `output` opened for writing or renamed.
    """

    def __init__(self) -> None:
        self.passed: Counter[str] = Counter()
        self.fault: Fault | None = None
        self.happened = False
        self.output = Path()
        register_module_forward_hook(self._layer)
        register_optimizer_step_pre_hook(lambda *_: self._pass(BEFORE_UPDATE))
        register_optimizer_step_post_hook(lambda *_: self._pass(AFTER_UPDATE))
        comfy.utils.set_progress_bar_global_hook(self._bar)
        sys.addaudithook(self._file)

    def arm(self, fault: Fault | None, output: Path) -> None:
        """Begin to count anew, for a run that writes to `output`."""
        self.passed.clear()
        self.fault, self.happened, self.output = fault, False, output

    def loop(self) -> asyncio.AbstractEventLoop:
        """Return an event loop for ComfyUI's server, in which messages count and go nowhere."""
        injector = self

        class Loop(asyncio.SelectorEventLoop):
            def call_soon_threadsafe(self, *_args: Any, **_kwargs: Any) -> Any:
                injector._pass(MESSAGE)

        return Loop()

    def _layer(self, layer: nn.Module, _inputs: Any, out: Any) -> Tensor | None:
        """Count a layer without layers inside; a fault in a backward pass waits for one."""
        if next(layer.children(), None) is not None or not isinstance(out, Tensor):
            return None
        fault, backward = self.fault, self._backward()
        if backward is None:
            self._pass(LAYER)
            due = fault is not None and fault.kind == NAN and self.passed[LAYER] == fault.at + 1
            return out * float("nan") if due and out.is_floating_point() else None
        self.passed[LAYER] += 1
        if self.passed[LAYER] > fault.at and not self.happened and out.requires_grad:  # type: ignore[union-attr]
            self.happened = True
            out.register_hook(backward)
        return None

    def _backward(self) -> Callable[[Tensor], Tensor] | None:
        """Return what happens to a gradient, for a fault in the backward pass."""

        def without_memory(_gradient: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

        kind = self.fault.kind if self.fault else ""
        nan = {NAN_GRADIENT: lambda gradient: gradient * float("nan")}
        return {**nan, BACKWARD_OUT_OF_MEMORY: without_memory}.get(kind)

    def _bar(self, *_args: Any, **_kwargs: Any) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()  # as ComfyUI's own
        self._pass(BAR)

    def _file(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in ("open", "os.rename", "os.link") or self.output == Path():
            return
        path = arguments[0]
        if not isinstance(path, str | os.PathLike) or self.output not in Path(path).parents:
            return
        if event != "open" or (arguments[1] is not None and set("wxa+") & set(arguments[1])):
            self._pass(FILE)

    def _pass(self, place: str) -> None:
        number = self.passed[place]
        self.passed[place] += 1
        fault = self.fault
        if fault is not None and (fault.place, fault.at) == (place, number):
            self.happened = True
            _happen(fault.kind, self.output)


def _happen(kind: str, output: Path) -> None:
    if kind == OUT_OF_MEMORY:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    if kind == ERROR:
        raise FaultError("CUDA error: unspecified launch failure")
    if kind == DISK_ERROR:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if kind == CANCEL:
        comfy.model_management.interrupt_current_processing(True)
    elif kind == KILL:
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == REMOVED:
        shutil.rmtree(output / "ziplora", ignore_errors=True)
    elif kind == FULL_DISK:
        fill(output)


def fill(folder: Path) -> None:
    """Write zeros to a file beside the folder until its disk is full."""
    block = bytes(1 << 16)
    try:
        with open(folder.parent / "filler", "wb", buffering=0) as file:
            while file.write(block):
                pass
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
