"""Reader of the mergers that the public UnZipLoRA code saves beside its two LoRAs.

`OUT_merger_content.pth` is a dictionary of `unet.<diffusers module>.lora.merge_content` `(out,)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import ZipLoRAError, problem
from ..lora.factors import LoRA
from .key_formats import name_module
from .reader import UNPICKLING_ERRORS


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
    strange = next((key for key in tensors if not str(key).endswith(ending)), None)
    if strange is not None:
        raise _unlike(path, f"a key {strange}", f"keys that end in {ending}", concept)
    mergers = {name_module(key.removesuffix(ending))[0]: t for key, t in tensors.items()}
    heights = {name: len(factors.up) for name, factors in lora.modules.items()}
    other = sorted({*mergers} ^ {*heights})
    if other:
        found = f"{len(mergers)} mergers for {len(heights)} modules (not in both, e.g. {other[0]})"
        raise _unlike(path, found, f"one for each module of {lora.name}", concept)
    for name, merger in mergers.items():
        if not isinstance(merger, Tensor) or tuple(merger.shape) != (heights[name],):
            found = f"{tuple(getattr(merger, 'shape', ()))} at {name}"
            raise _unlike(path, found, f"({heights[name]},), its output features", concept)
        if not merger.isfinite().all():
            raise _unlike(path, f"NaN or infinity at {name}", "numbers", concept)
    return {name: merger.detach().float() for name, merger in mergers.items()}


def _unpickle(path: Path, concept: str) -> Mapping[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (*UNPICKLING_ERRORS, OSError) as error:
        found = f"an unreadable PyTorch file, or one that contains code ({type(error).__name__})"
        raise _unlike(path, found, "tensors only", concept) from error
    if not isinstance(content, dict) or not content:
        raise _unlike(path, f"a {type(content).__name__}", "tensors by key", concept)
    return content


def _unlike(path: Path, found: str, expected: str, concept: str) -> ZipLoRAError:
    return problem(
        path.name,
        found=found,
        expected=expected,
        advice=f"Pick the …_merger_{concept}.pth that was saved with this LoRA, or None.",
    )
