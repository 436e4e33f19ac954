"""Measurement of the peak memory of a piece of work."""

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
    """Return the peak bytes of tensors that one call allocates.

    On CUDA, the allocator's statistics give it; elsewhere, the sum of all allocations and releases
    that PyTorch's profiler has seen. Weights, factors, coefficients and the optimiser's state exist
    before, so activations, gradients and temporary tensors are counted.
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
        held += event.nbytes()  # negative when memory is freed
        peak = max(peak, held)
    return peak


def saved_bytes(forward: Callable[[], Tensor], besides: Sequence[Tensor]) -> int:
    """Return the bytes that autograd keeps for a backward pass, each storage counted once.

    Args:
        forward: function that returns a tensor with a gradient.
        besides: tensors that exist anyway and are not counted.
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
    """Growth of this process's resident memory inside a `with`, sampled every 5 ms."""

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
    """Return freed memory to the system, so that the next growth is visible (glibc only)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)
