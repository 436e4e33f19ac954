"""Recognition of out-of-memory errors, and recovery from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

_CUDA_OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation
_SAID = (
    "out of memory",  # CUDA, MPS, XPU, NPU, MLU
    "not enough gpu video memory",  # DirectML
    "not enough memory",  # the CPU's allocator on Windows
    "can't allocate memory",  # and elsewhere
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "cusolver_status_alloc_failed",
    "cublas_status_not_initialized",  # a handle found no memory on a full card
    "unable to find an engine to execute this computation",  # cuDNN without a workspace
    "unable to find a valid cudnn algorithm",
)
Result = TypeVar("Result")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that a device, or the computer, has run out of memory.

    Caching allocators raise `torch.OutOfMemoryError`. A running kernel raises
    `torch.AcceleratorError`. Several backends and libraries raise a `RuntimeError` that can be
    recognised only by its text.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    code, text = getattr(error, "error_code", None), str(error).lower()
    return code == _CUDA_OUT_OF_MEMORY or any(said in text for said in _SAID)


def unless_out_of_memory(work: Callable[[], Result]) -> Result | None:
    """Call a function and return its result, or None where memory runs out.

    The caller recovers outside of the exception handler, as the traceback keeps all tensors of the
    failed call alive.
    """
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    return None
