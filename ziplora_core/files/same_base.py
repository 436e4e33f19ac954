"""Whether LoRAs and models are of the same base; refusal of those that are not."""

from __future__ import annotations

from ..errors import problem
from ..lora.factors import LoRA
from .base_model import SDXL, SDXL_LIKE


def fits(base: str, family: str) -> bool:
    """Return whether a LoRA of a base, as `describe_base` names it, may fit a family of models.

    Args:
        base: the base; empty when unknown, "… or …" when the keys leave two.
        family: the family's name; empty when unknown.
    """
    if not (base and family):
        return True
    return base in SDXL_LIKE if family == SDXL else family in base.split(" or ")


def refuse_two_bases(one: LoRA, other: LoRA) -> None:
    """Refuse two LoRAs that were made for different base models.

    Raises:
        ZipLoRAError: both bases are known, and no model takes both LoRAs.
    """
    families = {one.base, SDXL} if one.base in SDXL_LIKE else set(one.base.split(" or "))
    if not any(fits(other.base, family) for family in families - {""} or {""}):
        raise problem(
            f"{one.name} and {other.name}",
            found=f"LoRAs for {one.base} and for {other.base}",
            expected="two LoRAs for one base model",
            advice="Pick two that were trained on the same base model.",
        )


def refuse_other_base(subject: str, base: str, family: str, why: str = "") -> None:
    """Refuse a LoRA that was made for another base model.

    Args:
        subject: the file, for the message.
        base: name that `describe_base` gave.
        family: the family of the model that it is for.
        why: what did not fit, if it was tried.

    Raises:
        ZipLoRAError: the base is known, and not of that family.
    """
    if not fits(base, family):
        others = " or a checkpoint of its family" if family == SDXL else ""
        raise problem(
            subject,
            found=f"a LoRA for {base}" + (f" ({why})" if why else ""),
            expected=f"a LoRA for {family}{others}",
            advice=f"Pick a LoRA that was trained on {family}, or load a checkpoint of {base}: "
            "a LoRA cannot be converted from one to the other.",
        )
