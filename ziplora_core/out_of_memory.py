"""What counts as memory that ran out, and how to go on without the tensors that filled it."""

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
)
Result = TypeVar("Result")


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that a device, or the computer, has no memory left.

    `torch.OutOfMemoryError` is what a caching allocator raises. A kernel that finds out while it
    runs raises `torch.AcceleratorError`, and several backends and libraries a `RuntimeError` whose
    text alone says it.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    code, text = getattr(error, "error_code", None), str(error).lower()
    return code == _CUDA_OUT_OF_MEMORY or any(said in text for said in _SAID)


def unless_out_of_memory(work: Callable[[], Result]) -> Result | None:
    """Do some work; None where memory runs out.

    The caller goes on outside of the handler: the traceback keeps all that was made until then.
    """
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    return None
