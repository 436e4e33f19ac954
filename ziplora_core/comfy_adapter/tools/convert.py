"""Import and export of LoRA files for other programs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import problem, refuse_unknown
from ...files import read_lora
from ...files.export import PREFIXES, SUFFIXES, export_lora
from ...files.metadata import lora_metadata
from ...files.original_programs import sliders_method, sliders_title, ziplora_notes
from ...files.refusals import BiasAndNorm
from ...files.writer import WrittenFile
from ...lora.factors import UNET_PREFIX, LoRA, LoraFactors
from ..folders import save_lora, save_numbered
from ..model.bases import refuse_refiner
from ..model.targets import SDXL_LAYOUT, diffusers_paths, diffusers_shapes, resolve_unet

FORMATS = {
    "kohya": "loras",
    "comfy": "loras",
    "peft": "ziplora/exports",
    "diffusers": "ziplora/exports",
    "sliders": "loras",
    "ziplora": "ziplora/exports",
}
"""The folder of each format, inside the output folder. ComfyUI would load only a part of PEFT's and
diffusers' files without a message, and nothing of the public ZipLoRA's, so they stay outside all
LoRA folders."""
UNET_ONLY = frozenset(spelling for spelling, networks in PREFIXES.items() if len(networks) == 1)


def import_lora(
    path: Path, model: Any, bias_and_norm: BiasAndNorm
) -> tuple[LoRA, dict[str, LoraFactors]]:
    """Read a LoRA of any program and resolve its modules on a model.

    Args:
        path: the file.
        model: a `BaseModel`.
        bias_and_norm: whether bias and norm tensors are refused or left out.

    Returns:
        the LoRA as it was read, and its factors by kohya module name, sgm spelling.

    Raises:
        ZipLoRAError: the SDXL refiner, and the errors of `read_lora` and `resolve_unet`.
    """
    refuse_refiner(model)
    lora = read_lora(path, bias_and_norm, diffusers_shapes(model))
    return lora, resolve_unet(lora, model) | lora.text_encoder()


def save_export(
    lora: LoRA, prefix: str, spelling: str, dtype: str, extra: Mapping[str, str]
) -> tuple[WrittenFile, list[str]]:
    """Save a LoRA in one of FORMATS, with the next free number.

    Args:
        lora: the LoRA.
        prefix: the file name prefix, inside the folder of the format.
        spelling: one of FORMATS.
        dtype: the dtype of the saved tensors.
        extra: further metadata.

    Returns:
        the written file, and notes for the report.

    Raises:
        ZipLoRAError: an unknown format, a bad prefix, tensors that are not finite, a file that
            cannot be written, or a module with no name in that format.
    """
    refuse_unknown("format", spelling, FORMATS)
    description = "LoRA exported by the ZipLoRA pack for ComfyUI"
    if spelling == "kohya":
        return save_lora(lora.modules, prefix, dtype, description, extra)[1], []
    modules = lora.unet() if spelling in UNET_ONLY else dict(lora.modules)
    if not modules:
        raise problem(
            lora.name,
            found="text-encoder modules only",
            expected=f"modules of the UNet, for the format {spelling}",
            advice="Choose the format diffusers.",
        )
    paths = _unet_paths(spelling)
    notes = []
    if left_out := len(lora.modules) - len(modules):
        notes.append(
            f"{left_out} text-encoder modules are left out: the format {spelling} is for the UNet"
        )
    if spelling == "sliders":
        method, said = sliders_method(modules)
        prefix, notes = f"{prefix}_{sliders_title(modules, method)}", [*notes, *said]
    elif spelling == "ziplora":
        notes += ziplora_notes(modules)

    def write(base: Path) -> WrittenFile:
        metadata = lora_metadata(modules, title=base.name, description=description, extra=extra)
        path = Path(f"{base}{SUFFIXES.get(spelling, '.safetensors')}")
        return export_lora(path, modules, paths, spelling, metadata, dtype)

    return save_numbered(prefix, FORMATS[spelling], write), notes


def _unet_paths(spelling: str) -> dict[str, str]:
    """Map SDXL's kohya module names to dotted paths: sgm for `comfy`, else diffusers'."""
    return {
        UNET_PREFIX + sgm.replace(".", "_"): sgm if spelling == "comfy" else path
        for sgm, path in diffusers_paths(SDXL_LAYOUT).items()
    }
