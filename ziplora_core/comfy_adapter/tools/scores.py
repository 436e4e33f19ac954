"""Alignment scores: the metrics of the ZipLoRA paper's Table 2 (arXiv:2311.13600)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...errors import ZipLoRAError, problem
from ...plots.scores import Alignment, mean_cosine
from ..model.memory_advice import memory_advice
from .image_encoders import (
    check_family,
    describe_encoder,
    encode_pictures,
    encode_prompt,
    family_of,
)

_CONNECT = {
    "clip_vision": "Connect clip_vision: Load CLIP Vision reads CLIP, DINOv2 and DINOv3.",
    "dino": "Connect dino: Load CLIP Vision reads CLIP, DINOv2 and DINOv3.",
    "clip": "Connect clip: the CLIP of Load Checkpoint.",
}


@dataclass(frozen=True)
class ScoreInputs:
    """The pictures to score, the references and the encoders.

    Args:
        images: the generated pictures, `(h, w, 3)` each, in 0…1.
        style_images, subject_images: the reference pictures; empty for none.
        prompt: the prompt of the pictures; empty for none.
        clip_vision, dino: the CLIP_VISION of each kind, or None.
        clip: SDXL's CLIP, or None.
    """

    images: Sequence[Tensor]
    style_images: Sequence[Tensor] = ()
    subject_images: Sequence[Tensor] = ()
    prompt: str = ""
    clip_vision: Any | None = None
    dino: Any | None = None
    clip: Any | None = None


@dataclass(frozen=True)
class Scores:
    """The alignments that could be measured, and notes for the report."""

    style: Alignment | None
    subject: Alignment | None
    text: Alignment | None
    notes: Sequence[str]

    @property
    def rows(self) -> list[Alignment]:
        return [row for row in (self.style, self.subject, self.text) if row is not None]


@memory_advice("Load a smaller encoder")
def score(compared: ScoreInputs) -> Scores:
    """Compute style (CLIP-I), subject (DINO) and text alignment (CLIP-T) as mean cosines.

    Raises:
        ZipLoRAError: nothing to compare, a reference without its encoder, an encoder of another
            kind, or an encoder whose embeddings are not as wide as the prompt's.
    """
    _check(compared)
    style = subject = text = None
    notes: list[str] = []
    if compared.clip_vision is not None and (compared.style_images or compared.prompt):
        encoder, name = compared.clip_vision, describe_encoder(compared.clip_vision)
        of_text = (
            encode_prompt(compared.clip, compared.prompt, encoder) if compared.prompt else None
        )
        drawn = encode_pictures(encoder, compared.images)
        if compared.style_images:
            style = _row(
                "style (CLIP-I)", name, drawn, encode_pictures(encoder, compared.style_images)
            )
        if of_text is not None:
            text = _row("text (CLIP-T)", name, drawn, of_text)
            notes.append("text: SDXL's second text encoder (OpenCLIP bigG), projected")
    if compared.dino is not None and compared.subject_images:
        family, name = family_of(compared.dino), describe_encoder(compared.dino)
        drawn = encode_pictures(compared.dino, compared.images)
        references = encode_pictures(compared.dino, compared.subject_images)
        subject = _row(f"subject ({family})", name, drawn, references)
        notes.append(f"{family} is not the paper's DINO (2021): its scores are on another scale")
    notes.append("compare scores only if they have the same encoder and the same references")
    return Scores(style, subject, text, notes)


@memory_advice("Load a smaller encoder")
def score_each(compared: ScoreInputs) -> dict[str, list[float]]:
    """Compute every picture's own style (CLIP-I) and subject alignment (DINO), as mean cosines.

    Args:
        compared: see `score`; without a prompt. It may have no encoders and no references.

    Returns:
        the cosines in −1…1 by `CLIP-I` and by the name of the subject's encoder, in the order of
        the pictures; only those whose references are given.

    Raises:
        ZipLoRAError: an encoder without references, or as in `score`.
    """
    check_references(compared)
    scores: dict[str, list[float]] = {}
    for name, encoder, _, references in _encoders(compared):
        if references:
            heading = "CLIP-I" if name == "clip_vision" else family_of(encoder)
            drawn, others = (encode_pictures(encoder, p) for p in (compared.images, references))
            scores[heading] = [mean_cosine(one[None], others) for one in drawn]
    return scores


def check_references(compared: ScoreInputs) -> None:
    """Check what `score_each` is given beside the pictures.

    Raises:
        ZipLoRAError: see there.
    """
    for name, encoder, reference, references in _encoders(compared):
        if encoder is not None and not references:
            raise problem(
                reference,
                found=f"nothing, with {name} given",
                expected=f"reference pictures for {name}",
                advice=f"Connect {reference}, or disconnect {name}.",
            )
    if compared.style_images or compared.subject_images:
        _check(compared)


def _encoders(compared: ScoreInputs) -> list[tuple[str, Any | None, str, Sequence[Tensor]]]:
    """List each encoder's input and value, and those of its references."""
    return [
        ("clip_vision", compared.clip_vision, "style_images", compared.style_images),
        ("dino", compared.dino, "subject_images", compared.subject_images),
    ]


def _row(metric: str, encoder: str, drawn: Tensor, others: Tensor) -> Alignment:
    return Alignment(metric, encoder, len(drawn) * len(others), mean_cosine(drawn, others))


def _check(compared: ScoreInputs) -> None:
    """Check the inputs before anything is encoded."""
    if compared.clip_vision is not None:
        advice = "Connect a CLIP vision model here, and DINOv2 or DINOv3 to dino."
        check_family(compared.clip_vision, "clip_vision", ["CLIP"], advice)
    if compared.dino is not None:
        advice = "Connect DINOv2 or DINOv3 here, and CLIP's vision model to clip_vision."
        check_family(compared.dino, "dino", ["DINOv2", "DINOv3"], advice)
    needs = (
        ("style_images", len(compared.style_images), "clip_vision", compared.clip_vision),
        ("subject_images", len(compared.subject_images), "dino", compared.dino),
        ("prompt", len(compared.prompt), "clip_vision", compared.clip_vision),
        ("prompt", len(compared.prompt), "clip", compared.clip),
    )
    for reference, count, name, given in needs:
        if count and given is None:
            raise _missing(name, f"nothing, with {reference} given", _CONNECT[name])
    if not (compared.style_images or compared.subject_images or compared.prompt):
        raise _missing(
            "style_images, subject_images and prompt", "none of them", "Connect at least one."
        )


def _missing(name: str, found: str, advice: str) -> ZipLoRAError:
    return problem(
        name,
        found=found,
        expected="pictures with clip_vision (style), with dino (subject), or a prompt with "
        "clip_vision and clip (text)",
        advice=advice,
    )
