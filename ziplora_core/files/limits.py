"""How large the factors of a file may become, found from its shapes before anything is multiplied.

LoHa, LoKr and cores are products: 80 KB of factors can stand for a plain LoRA of gigabytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import problem

GROWTH = 20
"""Bytes of memory, beside those of a model, that each byte of a file may take."""
MAX_TENSORS = 100_000
MAX_KEY = 1000
"""Longest key in letters; those of SDXL have about 120."""
_FLOAT32 = 4
_TEXT_ENCODER_WIDTH = 5120
"""The widest layer of SDXL's text encoders."""


@dataclass(frozen=True)
class Limits:
    """The model that a file's factors have to suit.

    Args:
        widest: largest number of features that one of its layers reads (kernel included) or gives.
            The default is above 55,296, the widest of any diffusion model we know (Flux.2).
        model_bytes: its weights in half precision; by default those of SDXL's UNet.
    """

    widest: int = 65_536
    model_bytes: int = 2 * 2_567_463_684

    @classmethod
    def of(cls, targets: Iterable[Sequence[int]]) -> Limits:
        """Take the limits from the shapes of a UNet's weights."""
        shapes = [(shape[0], math.prod(shape[1:])) for shape in targets if len(shape) > 1]
        widest = max((size for shape in shapes for size in shape), default=0)
        numbers = sum(out * width for out, width in shapes)
        return cls(max(widest, _TEXT_ENCODER_WIDTH), 2 * numbers)


def check_keys(keys: Iterable[object], name: str) -> None:
    """Refuse more, or longer, keys than any LoRA has, as the time to sort them has no bound.

    Raises:
        ZipLoRAError: the first thing that is too large.
    """
    count = 0
    for count, key in enumerate(keys, start=1):  # noqa: B007
        if len(str(key)) > MAX_KEY:
            raise _too_large(
                name, f"a key of {len(str(key))} letters", f"keys of at most {MAX_KEY}"
            )
    if count > MAX_TENSORS:
        raise _too_large(name, f"{count} tensors", f"at most {MAX_TENSORS}")


def check_volume(shapes: Mapping[str, Sequence[int]], size: int, name: str) -> None:
    """Refuse tensors that share their memory in the file, and would each need their own.

    Args:
        shapes: shape of every tensor, by key.
        size: the file's bytes.
        name: the file's name, for messages.

    Raises:
        ZipLoRAError: in float32 they are more than GROWTH times the file.
    """
    needed = _FLOAT32 * sum(map(math.prod, shapes.values()))
    if needed > GROWTH * size:
        raise _too_large(
            name,
            f"tensors of {_in_words(needed)} in a file of {_in_words(size)}",
            f"at most {GROWTH} times the file",
        )


def check_products(numbers: int, size: int, limits: Limits, name: str) -> None:
    """Refuse products whose factors are out of proportion to the file and the model.

    Args:
        numbers: numbers of all factors together.
        size: the file's bytes.
        limits: the model.
        name: the file's name, for messages.

    Raises:
        ZipLoRAError: they need more memory than GROWTH times the file and the model together.
    """
    needed, allowed = _FLOAT32 * numbers, GROWTH * size + limits.model_bytes
    if needed > allowed:
        raise _too_large(
            name,
            f"products that are {_in_words(needed)} as a plain LoRA",
            f"at most {_in_words(allowed)}, the size of the model and {GROWTH} times the file",
        )


def _in_words(size: int) -> str:
    """Write a number of bytes with a fitting unit."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"


def _too_large(name: str, found: str, expected: str) -> Exception:
    advice = "Use a plain LoRA: this file is damaged, or made to exhaust the memory."
    return problem(name, found=found, expected=expected, advice=advice)
