"""The inputs of trainings on pictures, and those that the result depends on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...dreambooth.options import DreamBoothSettings
from ...errors import problem
from ...training.resume_key import Inputs, picture_digest, settings_that_count
from ...unziplora.options import UnZipLoRASettings
from ..data.pictures import split_pictures
from ..model.identity import identify_clip, identify_model, identify_vae


@dataclass(frozen=True)
class TrainingInputs:
    """The inputs of a training on pictures, other than its settings.

    Args:
        model, clip, vae: the checkpoint's MODEL, CLIP and VAE, which are not changed.
        images: batches `(b, h, w, 3)` in 0…1, of any sizes.
        captions: one text per picture, or one text with a line for each; empty for the prompt only.
        class_images: class images, in the form of `images`; None to have them drawn.
    """

    model: Any
    clip: Any
    vae: Any
    images: Sequence[Tensor]
    captions: Sequence[str] = ()
    class_images: Sequence[Tensor] | None = None


def split_class_pictures(inputs: TrainingInputs, class_prompt: str) -> list[Tensor]:
    """Split the batches of class pictures into single ones `(h, w, 3)`; empty if there are none.

    Raises:
        ZipLoRAError: there are class pictures but no class prompt.
    """
    if inputs.class_images is None:
        return []
    if not class_prompt:
        raise problem(
            "class_prompt",
            found="nothing, but class_images are connected",
            expected="a prompt that describes the class pictures, e.g. 'a photo of a dog'",
            advice="Write the class prompt, or disconnect class_images.",
        )
    return split_pictures(inputs.class_images, "class_images")


def picture_inputs(
    inputs: TrainingInputs,
    settings: DreamBoothSettings | UnZipLoRASettings,
    shown: Iterable[tuple[Tensor, str]],
    classes: Iterable[Tensor],
) -> Inputs:
    """Collect all inputs that the result depends on.

    Args:
        inputs: the node's inputs.
        settings: the node's settings.
        shown: the training pictures with their captions.
        classes: given class pictures, if they are used; drawn ones follow from the other inputs.
    """
    pictures = [[picture_digest(picture), caption] for picture, caption in shown]
    said = {
        **settings_that_count(settings),
        "pictures": pictures,
        "class pictures": [picture_digest(picture) for picture in classes],
    }
    return (
        identify_model(inputs.model)
        | identify_clip(inputs.clip)
        | identify_vae(inputs.vae)
        | Inputs(said)
    )
