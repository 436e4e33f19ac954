"""The most memory that a piece of work holds at once."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence

import psutil
import torch
from torch import Tensor
from torch.autograd.profiler import profile

MIB = 2**20


def peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """Count the most bytes of tensors that one call holds beyond those there before.

    On CUDA from the allocator's own statistics; elsewhere by adding up every allocation and release
    that PyTorch's profiler has seen. Weights, factors, coefficients and the optimiser's state were
    there before, so what is counted are activations, gradients and what comes and goes.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(profile_memory=True) as profiled:
        work()
    events = profiled.kineto_results.events()
    allocations = [event for event in events if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(allocations, key=lambda e: e.start_ns()):
        held += event.nbytes()  # negative where memory is given back
        peak = max(peak, held)
    return peak


def saved_bytes(forward: Callable[[], Tensor], besides: Sequence[Tensor]) -> int:
    """Count what autograd keeps for a backward pass, each storage once.

    Args:
        forward: gives something that requires a gradient.
        besides: tensors that are there anyway.
    """
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = forward()
    known = {tensor.untyped_storage().data_ptr() for tensor in besides}
    assert out.requires_grad
    return sum(size for place, size in kept.items() if place not in known)


class PeakResident:
    """How far this process grows, beyond what it had, inside a `with`: looked at every 5 ms."""

    def __enter__(self) -> PeakResident:
        _give_back()
        self._process, self._stop = psutil.Process(), threading.Event()
        self._before = self._peak = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self._peak = max(self._peak, self._process.memory_info().rss)

    @property
    def bytes(self) -> int:
        return self._peak - self._before


def _give_back() -> None:
    """Return freed memory to the system, so that what grows next is seen (glibc only)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)
