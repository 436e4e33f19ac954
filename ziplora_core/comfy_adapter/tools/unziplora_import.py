"""Import of files of the public UnZipLoRA as one merge on a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...errors import problem
from ...files import read_lora
from ...files.unziplora_mergers import read_mergers
from ...lora.factors import LoRA
from ...lora.merged import MergedLoRA
from ...unziplora.objective import CONCEPTS
from ...unziplora.separate_prompts import fold_mergers, merge_from_files
from ..model.bases import refuse_other_than_sdxl
from ..model.targets import resolve_unet


def import_unziplora(
    model: Any, files: Mapping[str, Path], mergers: Mapping[str, Path]
) -> tuple[MergedLoRA, list[LoRA]]:
    """Read a content and a style LoRA, and fold in their mergers.

    Args:
        model: a `BaseModel` of the SDXL family.
        files: the LoRA files of `content` and `style`.
        mergers: the files `OUT_merger_….pth` of `content` and `style`; a LoRA without one is used
            unchanged.

    Returns:
        the merge, and both LoRAs as they were read.

    Raises:
        ZipLoRAError: a LoRA for another model or with a text-encoder part, or mergers of another
            LoRA.
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
            lora = fold_mergers(lora, read_mergers(mergers[concept], concept, lora))
        halves.append(replace(lora, modules=resolve_unet(lora, model)))
    return merge_from_files(*halves), read
