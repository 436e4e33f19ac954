"""What a training on pictures takes in, and which of it the result depends on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..errors import problem
from ..options import DreamBoothSettings, UnZipSettings
from ..resume_key import Inputs, counted, picture_digest
from .loaded_inputs import of_clip, of_model, of_vae
from .pictures import split_pictures


@dataclass(frozen=True)
class Studio:
    """What a training takes from the canvas beside its settings.

    Args:
        model, clip, vae: of the checkpoint; none of them is changed.
        images: batches `(b, h, w, 3)` in 0…1, of any sizes.
        captions: one text a picture, or one text with a line for each; empty for the prompt alone.
        class_images: pictures of the class; None to have them drawn.
    """

    model: Any
    clip: Any
    vae: Any
    images: Sequence[Tensor]
    captions: Sequence[str] = ()
    class_images: Sequence[Tensor] | None = None


def split_class_pictures(studio: Studio, class_prompt: str) -> list[Tensor]:
    """Take the class pictures apart, if there are any.

    Raises:
        ZipLoRAError: class pictures without a class prompt.
    """
    if studio.class_images is None:
        return []
    if not class_prompt:
        raise problem(
            "class_prompt",
            found="nothing, but class_images are connected",
            expected="what the class pictures show, e.g. 'a photo of a dog'",
            advice="Write the class prompt, or disconnect class_images.",
        )
    return split_pictures(studio.class_images, "class_images")


def picture_inputs(
    studio: Studio,
    settings: DreamBoothSettings | UnZipSettings,
    shown: Iterable[tuple[Tensor, str]],
    classes: Iterable[Tensor],
) -> Inputs:
    """Name all that the result depends on.

    Args:
        shown: the pictures to learn, with their captions.
        classes: class pictures that are given and count; drawn ones follow from the rest.
    """
    pictures = [[picture_digest(picture), caption] for picture, caption in shown]
    said = {
        **counted(settings),
        "pictures": pictures,
        "class pictures": [picture_digest(picture) for picture in classes],
    }
    return of_model(studio.model) | of_clip(studio.clip) | of_vae(studio.vae) | Inputs(said)
