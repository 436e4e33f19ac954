"""Reader of the mergers that the public UnZipLoRA code saves beside its two LoRAs.

`OUT_merger_content.pth` is a dictionary of `unet.<diffusers module>.lora.merge_content` `(out,)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ..errors import ZipLoRAError, problem
from ..lora.factors import LoRA
from .key_formats import name_module
from .pickle_reader import is_plain, unpickle


def read_mergers(path: Path, concept: str, lora: LoRA) -> dict[str, Tensor]:
    """Read the merger of every module of a LoRA, by module name.

    Args:
        path: the file; code in it is never run.
        concept: `content` or `style`, the concept that the mergers must belong to.
        lora: the LoRA read from the file beside it.

    Raises:
        ZipLoRAError: the file is missing or damaged, or belongs to the other concept or another
            LoRA.
    """
    ending = f".lora.merge_{concept}"
    tensors = _unpickle(path, concept)
    for key in tensors:
        if not isinstance(key, str) or not key.endswith(ending):
            raise _unlike(path, f"a key {key}", f"keys that end in {ending}", concept)
    mergers = {name_module(key.removesuffix(ending))[0]: t for key, t in tensors.items()}
    heights = {name: len(factors.up) for name, factors in lora.modules.items()}
    other = sorted({*mergers} ^ {*heights})
    if other:
        found = f"{len(mergers)} mergers for {len(heights)} modules (not in both, e.g. {other[0]})"
        raise _unlike(path, found, f"one for each module of {lora.name}", concept)
    for name, merger in mergers.items():
        if not is_plain(merger) or tuple(merger.shape) != (heights[name],):
            found = f"{tuple(getattr(merger, 'shape', ()))} at {name}"
            raise _unlike(path, found, f"({heights[name]},), its output features", concept)
        if not merger.is_floating_point() or not merger.isfinite().all():
            raise _unlike(path, f"NaN or infinity at {name}", "numbers", concept)
    return {name: merger.detach().float() for name, merger in mergers.items()}


def _unpickle(path: Path, concept: str) -> Mapping[str, Tensor]:
    try:
        content, _ = unpickle(path, _advice(concept))
    except OSError as error:
        found = f"an unreadable file ({error.strerror or type(error).__name__})"
        raise _unlike(path, found, "tensors only", concept) from error
    if not isinstance(content, dict) or not content:
        raise _unlike(path, f"a {type(content).__name__}", "tensors by key", concept)
    return content


def _advice(concept: str) -> str:
    return f"Pick the …_merger_{concept}.pth that was saved with this LoRA, or None."


def _unlike(path: Path, found: str, expected: str, concept: str) -> ZipLoRAError:
    return problem(
        path.name,
        found=found,
        expected=expected,
        advice=_advice(concept),
    )
