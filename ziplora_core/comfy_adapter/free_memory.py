"""Memory that ran out: given back through ComfyUI, and said in a way that helps."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import comfy.model_management

from ..errors import problem
from ..out_of_memory import is_out_of_memory, unless_out_of_memory

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


def free_memory() -> None:
    """Give back what is no longer used, after memory has run out on whatever device."""
    comfy.model_management.discard_cuda_async_error()  # or the next call would raise it once more
    comfy.model_management.soft_empty_cache()


def tried(work: Callable[[], Result]) -> Result | None:
    """Do some work; None where memory runs out, which is free again then."""
    done = unless_out_of_memory(work)
    if done is None:
        free_memory()
    return done


@contextmanager
def memory_advice(first: str) -> Iterator[None]:
    """Say what to do where memory runs out, and leave the card empty, as ComfyUI itself does.

    Args:
        first: what to do before anything else, e.g. `Lower width and height`.

    Raises:
        ZipLoRAError: in the place of any error that means it.
    """
    try:
        yield
        return
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        logger.warning("ZipLoRA: memory ran out", exc_info=True)
        said = str(error).strip().partition("\n")[0] or type(error).__name__
    free_memory()  # outside of the handler, whose traceback keeps the tensors
    comfy.model_management.unload_all_models()
    raise problem(
        "memory",
        found=f"none left ({said})",
        expected="enough for the model and for what is computed beside it",
        advice=f"{first}, close other programs, or start ComfyUI with --reserve-vram.",
    )
