"""The kinds of checkpoint a LoRA is trained on or put on: SDXL's family, and others by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import comfy.model_base
import comfy.sdxl_clip

from ...errors import problem

_OTHER = "Pick a LoRA for this base model, or load the checkpoint it was trained on."
_REFINER = "Connect the SDXL base checkpoint; the refiner can draw the last steps without LoRAs."


@dataclass(frozen=True)
class Place:
    """The network that a LoRA is put on.

    Args:
        name: its name in messages.
        advice: what to do if the LoRA does not fit.
        is_sdxl: whether LoRAs for SDXL belong there.
    """

    name: str
    advice: str = _OTHER
    is_sdxl: bool = True


def unet_place(model: Any) -> Place:
    """Name a `BaseModel`."""
    if isinstance(model, comfy.model_base.SDXLRefiner):
        return Place("the SDXL refiner", _REFINER, is_sdxl=False)
    is_sdxl = isinstance(model, comfy.model_base.SDXL)
    return Place(f"this {type(model).__name__} model", is_sdxl=is_sdxl)


def clip_place(clip: Any) -> Place:
    """Name a CLIP."""
    if _is_refiners(clip):
        return Place("the CLIP of the SDXL refiner", _REFINER, is_sdxl=False)
    return Place("this CLIP")


def refuse_other_than_sdxl(model: Any) -> None:
    """Refuse a `BaseModel` that is not of the SDXL family, for which all files are written.

    Raises:
        ZipLoRAError: the model is of another family.
    """
    if isinstance(model, comfy.model_base.SDXL):
        return
    refiner = isinstance(model, comfy.model_base.SDXLRefiner)
    raise problem(
        "model",
        found="the SDXL refiner" if refiner else f"a {type(model).__name__} model",
        expected="SDXL or a checkpoint of its family (Pony, Illustrious, NoobAI, …)",
        advice=_REFINER if refiner else "Load an SDXL checkpoint; the files are written for SDXL.",
    )


def refuse_refiners_clip(clip: Any) -> None:
    """Refuse the CLIP of the SDXL refiner, which has one of SDXL's two text encoders.

    Raises:
        ZipLoRAError: it is the refiner's.
    """
    if _is_refiners(clip):
        raise problem(
            "clip",
            found="the CLIP of the SDXL refiner",
            expected="the CLIP of the checkpoint that is trained",
            advice="Connect the CLIP of the SDXL base checkpoint.",
        )


def _is_refiners(clip: Any) -> bool:
    return isinstance(clip.cond_stage_model, comfy.sdxl_clip.SDXLRefinerClipModel)
