"""What a DreamBooth training takes in: from the canvas, and as one hash."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from ..checkpoint import fingerprint
from ..dreambooth import PictureObjective
from ..errors import problem
from .pictures import split_pictures
from .training_model import TrainingModel

_WITHOUT_EFFECT = (
    *("resume", "checkpoint_every", "held_out_draws", "early_stop"),
    *("sample_every", "sample_prompts"),
)
_SHOWN_ONLY = ("images_per_validation", "saves_per_validation", "validation_steps")
"""Options and settings that a result does not depend on."""


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


def inputs_hash(
    opened: TrainingModel,
    task: PictureObjective[Any],
    encoded: Mapping[str, Any],
    texts: Iterable[str] = (),
) -> str:
    """Hash everything the result depends on, the patched base included.

    Args:
        opened: the loaded model.
        task: the objective before its first step.
        encoded: CONDITIONING of every caption, by the CLIP as it came.
        texts: that count beside the pictures' captions.
    """
    tensors = opened.fingerprint()
    shown: list[Any] = []
    for term, examples in (("picture", task.instances), ("class", task.classes)):
        for n, example in enumerate(examples):
            for m, view in enumerate(example.views):
                tensors[f"{term} {n} {m} mean"] = view.mean
                tensors[f"{term} {n} {m} std"] = view.std
                shown.append([term, example.caption, asdict(view.frame)])
    for caption in {*texts, *(e.caption for e in (*task.instances, *task.classes))}:
        [[context, extras]] = encoded[caption]
        tensors[f"caption {caption}"] = context
        tensors[f"pooled {caption}"] = extras["pooled_output"]
    settings = asdict(task.settings) | {"shown": shown, "v": opened.v_prediction}
    for name in _WITHOUT_EFFECT:
        settings["options"].pop(name)
    for name in _SHOWN_ONLY:
        settings.pop(name, None)
    return fingerprint(settings, tensors)
