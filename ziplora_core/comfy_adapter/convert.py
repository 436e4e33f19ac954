"""LoRA files of other programs in, and out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import problem
from ..files import read_lora
from ..files.export import export_lora
from ..files.metadata import lora_metadata
from ..files.refused import BiasAndNorm
from ..files.writer import WrittenFile
from ..lora import UNET_PREFIX, LoRA, LoraFactors
from .pairs import refuse_other_than_sdxl
from .paths import save_lora, save_numbered
from .targets import diffusers_paths, diffusers_shapes, resolve_unet

FORMATS = {
    "kohya": "loras",
    "comfy": "loras",
    "peft": "ziplora/exports",
    "diffusers": "ziplora/exports",
}
"""Format → folder of the output folder. Of PEFT's and diffusers' files ComfyUI would load a part
and say nothing of the rest, so they stay outside every LoRA folder."""

SDXL_LAYOUT = {
    "num_res_blocks": [2, 2, 2],
    "channel_mult": [1, 2, 4],
    "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_middle": 10,
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
}
"""Where SDXL's UNet has blocks, as ComfyUI's configurations say it."""


def import_lora(
    path: Path, model: Any, bias_and_norm: BiasAndNorm
) -> tuple[LoRA, dict[str, LoraFactors]]:
    """Read a LoRA of any program and find the place of every module in a model.

    Args:
        path: the file.
        model: a `BaseModel` of the SDXL family.
        bias_and_norm: refuse the file for bias and norm tensors, or leave them out.

    Returns:
        the LoRA as it was read, and its factors by kohya module name, sgm spelling.

    Raises:
        ZipLoRAError: another model, or as `read_lora` and `resolve_unet`.
    """
    refuse_other_than_sdxl(model)
    lora = read_lora(path, bias_and_norm, diffusers_shapes(model))
    return lora, resolve_unet(lora, model) | lora.text_encoder()


def save_export(
    lora: LoRA, prefix: str, spelling: str, dtype: str, extra: Mapping[str, str]
) -> tuple[WrittenFile, list[str]]:
    """Save a LoRA in one of FORMATS, with the next free number.

    Returns:
        what was written, and what a reader should know of it.

    Raises:
        ZipLoRAError: bad prefix, not finite, not writable, or a module that has no name there.
    """
    description = "LoRA exported by the ZipLoRA pack for ComfyUI"
    if spelling == "kohya":
        return save_lora(lora.modules, prefix, dtype, description, extra)[1], []
    modules = lora.unet() if spelling == "peft" else dict(lora.modules)
    if not modules:
        raise problem(
            lora.name,
            found="text-encoder modules only",
            expected="modules of the UNet, which a PEFT folder is for",
            advice="Choose the format diffusers.",
        )
    paths = _unet_paths(spelling)

    def write(base: Path) -> WrittenFile:
        metadata = lora_metadata(modules, title=base.name, description=description, extra=extra)
        path = base if spelling == "peft" else Path(f"{base}.safetensors")
        return export_lora(path, modules, paths, spelling, metadata, dtype)

    written = save_numbered(prefix, FORMATS[spelling], write)
    left_out = len(lora.modules) - len(modules)
    note = f"{left_out} text-encoder modules are not in it: a PEFT folder is for one network"
    return written, [note] if left_out else []


def _unet_paths(spelling: str) -> dict[str, str]:
    """Map SDXL's kohya module names to dotted paths: sgm for `comfy`, else diffusers'."""
    return {
        UNET_PREFIX + sgm.replace(".", "_"): sgm if spelling == "comfy" else path
        for sgm, path in diffusers_paths(SDXL_LAYOUT).items()
    }
