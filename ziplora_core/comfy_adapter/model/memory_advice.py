"""Handling of out-of-memory errors: freeing memory through ComfyUI, and the error message."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import comfy.model_management

from ...errors import problem
from ...training.out_of_memory import is_out_of_memory, unless_out_of_memory

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


def free_memory() -> None:
    """Free unused memory, after memory has run out on any device."""
    comfy.model_management.discard_cuda_async_error()  # or the next call raises it again
    comfy.model_management.soft_empty_cache()


def unload_all_models() -> None:
    """Unload all models, as ComfyUI does, with Python's garbage collection paused.

    ComfyUI goes through its loaded models by number, and a model that dies on the way, as one in
    a reference cycle does whenever garbage happens to be collected, takes its number away.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        comfy.model_management.unload_all_models()
    finally:
        if collecting:
            gc.enable()


def run_or_free_memory(work: Callable[[], Result]) -> Result | None:
    """Return the result of `work`, or free memory and return None if memory runs out."""
    done = unless_out_of_memory(work)
    if done is None:
        free_memory()
    return done


@contextmanager
def memory_advice(first: str) -> Iterator[None]:
    """Turn an out-of-memory error into one with advice, and unload all models, as ComfyUI does.

    Args:
        first: the first advice, e.g. `Lower width and height`.

    Raises:
        ZipLoRAError: memory ran out; replaces the original error.
    """
    try:
        yield
        return
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        logger.warning("ZipLoRA: memory ran out", exc_info=True)
        said = str(error).strip().partition("\n")[0] or type(error).__name__
    free_memory()  # after the handler: its traceback keeps tensors alive
    unload_all_models()
    raise problem(
        "memory",
        found=f"none left ({said})",
        expected="enough for the model and for what is computed beside it",
        advice=f"{first}, close other programs, or start ComfyUI with --reserve-vram.",
    )
