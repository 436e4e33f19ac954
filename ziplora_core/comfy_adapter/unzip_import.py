"""What the public UnZipLoRA has saved, as one merge on a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import problem
from ..files import read_lora
from ..files.mergers import read_mergers
from ..lora import LoRA
from ..merge import MergedLoRA
from ..unzip import CONCEPTS
from ..unzip_merges import of_single_files, with_mergers
from .pairs import refuse_other_than_sdxl
from .targets import resolve_unet


def import_unzip(
    model: Any, files: Mapping[str, Path], mergers: Mapping[str, Path]
) -> tuple[MergedLoRA, list[LoRA]]:
    """Read a content and a style LoRA, and the mergers that are to be folded in.

    Args:
        model: a `BaseModel` of the SDXL family.
        files: the LoRA of `content` and of `style`.
        mergers: the same for `OUT_merger_….pth`; without one the LoRA counts as it is.

    Returns:
        the merge, and both LoRAs as they were read.

    Raises:
        ZipLoRAError: another model's, with a text-encoder part, or mergers of another LoRA.
    """
    refuse_other_than_sdxl(model)
    read = [read_lora(files[concept]) for concept in CONCEPTS]
    halves = []
    for concept, lora in zip(CONCEPTS, read, strict=True):
        if text := len(lora.text_encoder()):
            raise problem(
                lora.name,
                found=f"{text} text-encoder modules",
                expected="a LoRA of the UNet alone, as UnZipLoRA's are",
                advice="Merge other LoRAs with Load LoRA Pair and ZipLoRA Optimize.",
            )
        if concept in mergers:
            lora = with_mergers(lora, read_mergers(mergers[concept], concept, lora))
        halves.append(replace(lora, modules=resolve_unet(lora, model)))
    return of_single_files(*halves), read
