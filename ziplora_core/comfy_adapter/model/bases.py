"""The models and CLIPs that a LoRA is put on or trained on, and those that are refused by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import comfy.model_base
import comfy.sdxl_clip

from ...errors import problem
from ...files.base_model import REFINER, SDXL
from .family import family_of

_OTHER = "Pick a LoRA for this base model, or load the checkpoint it was trained on."
_REFINER = "Connect the SDXL base checkpoint; the refiner can draw the last steps without LoRAs."


@dataclass(frozen=True)
class Place:
    """The network that a LoRA is put on.

    Args:
        name: its name in messages.
        family: the family whose LoRAs belong there.
        advice: what to do if the LoRA does not fit.
    """

    name: str
    family: str
    advice: str = _OTHER


def unet_place(model: Any) -> Place:
    """Name a `BaseModel`."""
    if isinstance(model, comfy.model_base.SDXLRefiner):
        return Place(REFINER, REFINER, _REFINER)
    family = family_of(model).name
    return Place(f"this {family} model", family)


def clip_place(clip: Any) -> Place:
    """Name a CLIP."""
    if _is_refiners(clip):
        return Place("the CLIP of the SDXL refiner", REFINER, _REFINER)
    return Place("this CLIP", SDXL if _is_sdxls(clip) else "")


def refuse_refiner(model: Any) -> None:
    """Refuse the SDXL refiner, which LoRAs are not made for, and models that do not draw images.

    Raises:
        ZipLoRAError: it is one of these.
    """
    if isinstance(model, comfy.model_base.SDXLRefiner):
        raise problem(
            "model",
            found=REFINER,
            expected="SDXL or a checkpoint of its family (Pony, Illustrious, NoobAI, …)",
            advice=_REFINER,
        )
    if model.latent_format.latent_dimensions not in (2, 3):
        raise problem(
            "model",
            found=f"{family_of(model).name}, which does not draw images",
            expected="a model that draws images",
            advice="Load a checkpoint for images.",
        )


def refuse_other_than_sdxl(model: Any) -> None:
    """Refuse a `BaseModel` that is not of the SDXL family, where only that is supported.

    Raises:
        ZipLoRAError: the model is of another family.
    """
    refuse_refiner(model)
    if not isinstance(model, comfy.model_base.SDXL):
        raise problem(
            "model",
            found=family_of(model).name,
            expected="SDXL or a checkpoint of its family (Pony, Illustrious, NoobAI, …)",
            advice="Load an SDXL checkpoint: this node works with no other family yet.",
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


def _is_sdxls(clip: Any) -> bool:
    return isinstance(clip.cond_stage_model, comfy.sdxl_clip.SDXLClipModel)
