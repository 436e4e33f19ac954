"""Which errors mean that memory ran out, and what is left of the work that filled it."""

from __future__ import annotations

import weakref

import pytest
import torch

from ziplora_core.training.out_of_memory import is_out_of_memory, unless_out_of_memory


def accelerator_error(text: str, code: int | None = None) -> Exception:
    error = torch.AcceleratorError(text)
    if code is not None:
        error.error_code = code  # pyright: ignore[reportAttributeAccessIssue]
    return error


OUT_OF_MEMORY = {
    "allocator": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "kernel": accelerator_error("CUDA error: out of memory"),
    "kernel, by its code": accelerator_error("CUDA error", code=2),
    "mps": RuntimeError("MPS backend out of memory (MPS allocated: 17.5 GB, max allowed: 18 GB)"),
    "npu": RuntimeError("NPU out of memory. Tried to allocate 20.00 MiB"),
    "directml": RuntimeError(
        "Could not allocate tensor with 52428800 bytes. There is not enough GPU video memory "
        "available!"
    ),
    "cpu": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)"
    ),
    "cpu on windows": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: not enough memory: you "
        "tried to allocate 4000000000000 bytes."
    ),
    "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
    "cublas without a handle": RuntimeError(
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"
    ),
    "cusolver": RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `…`"),
    "cudnn": RuntimeError("GET was unable to find an engine to execute this computation"),
    "python": MemoryError(),
}
OTHER = {
    "shapes": RuntimeError("mat1 and mat2 shapes cannot be multiplied (77x64 and 32x64)"),
    "kernel": accelerator_error("CUDA error: device-side assert triggered", code=710),
    "value": ValueError("out of memory"),
    "stopped": KeyboardInterrupt(),
}


@pytest.mark.parametrize("error", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY.keys())
def test_memory_that_ran_out_is_known_by_every_backends_words(error: Exception) -> None:
    def work() -> int:
        raise error

    assert is_out_of_memory(error) and unless_out_of_memory(work) is None


@pytest.mark.parametrize("error", OTHER.values(), ids=OTHER.keys())
def test_other_errors_go_on_up(error: BaseException) -> None:
    def work() -> None:
        raise error

    assert not is_out_of_memory(error)
    with pytest.raises(type(error)):
        unless_out_of_memory(work)


def test_an_allocation_that_cannot_be_is_one() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_nothing_keeps_the_tensors_of_work_that_failed() -> None:
    kept: list[weakref.ref[torch.Tensor]] = []

    def work() -> int:
        activations = torch.ones(3)
        kept.append(weakref.ref(activations))
        raise torch.OutOfMemoryError

    assert unless_out_of_memory(work) is None and kept[0]() is None
    assert unless_out_of_memory(lambda: 3) == 3
