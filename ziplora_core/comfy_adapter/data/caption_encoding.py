"""Captions of training pictures, and their conditioning with each picture's size and crop."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from ...errors import problem
from ...training.framing import Framing
from ..model import conditioning as cond
from ..model.family import latent_shape, with_training_guidance

_EMBEDDING = re.compile(r"(?<!\S)embedding(?=:)")
_SYNTAX = re.compile(rf"\([^()]+:\s*[\d.]+\s*\)|{_EMBEDDING.pattern}")
"""Syntax that is hardly meant as it is written: (a dog:1.2) and embedding:name."""


def match_captions(
    captions: Sequence[str], prompt: str, pictures: int, literal: bool = True
) -> list[str]:
    """Match captions to pictures; an empty caption becomes the prompt.

    Args:
        captions: one text per picture, one text with a line per picture, or none.
        prompt: the prompt of every picture without a caption, in ComfyUI's prompt syntax.
        pictures: the number of pictures.
        literal: whether captions are learned as they are written, see `as_prompt`; otherwise
            they are in ComfyUI's prompt syntax too.

    Returns:
        one text per picture, in ComfyUI's prompt syntax.

    Raises:
        ZipLoRAError: another number of captions than pictures, or neither caption nor prompt.
    """
    lines = list(captions)
    if len(lines) == 1 and pictures > 1:
        lines = lines[0].splitlines()
        while len(lines) > pictures and not lines[-1].strip():
            lines.pop()
    if not any(line.strip() for line in lines):
        lines = [""] * pictures
    if len(lines) != pictures:
        raise problem(
            "captions",
            found=f"{len(lines)} for {pictures} pictures",
            expected="one for each picture, in their order, or none at all",
            advice="Give a list of texts or one text with a line for each picture; an empty line "
            "stands for the prompt.",
        )
    captions = [" ".join(line.split()) for line in lines]
    if literal:
        captions = [as_prompt(caption) for caption in captions]
    if not all(captions):
        refuse_no_prompt(prompt)
    return [caption or prompt.strip() for caption in captions]


def refuse_no_prompt(prompt: str) -> None:
    """Refuse an empty prompt for pictures of which one has no caption.

    Raises:
        ZipLoRAError: it is empty.
    """
    if not prompt.strip():
        raise problem(
            "prompt",
            found="nothing, and a picture without a caption",
            expected="a prompt for the pictures, e.g. 'a photo of sks dog'",
            advice="Write a prompt with a rare word for your subject or style.",
        )


def as_prompt(caption: str) -> str:
    """Write a literal text in ComfyUI's prompt syntax: no emphasis, no embeddings.

    Brackets are escaped; those that a tagger has escaped already stay so. The space keeps
    `embedding:` from being ComfyUI's word for a file, and is none of CLIP's tokens.
    """
    plain = caption.replace("\\(", "(").replace("\\)", ")")
    escaped = plain.replace("(", "\\(").replace(")", "\\)")
    return _EMBEDDING.sub("embedding ", escaped)


def literal_note(captions: Iterable[str]) -> list[str]:
    """Name a caption that looks as if it were not meant literally."""
    meant = [caption for caption in captions if _SYNTAX.search(caption)]
    return [
        f"caption {caption!r} is learned as it is written: turn literal_captions off if it is in "
        "ComfyUI's prompt syntax"
        for caption in meant[:1]
    ]


def encode_captions(clip: Any, captions: Iterable[str], model: Any) -> dict[str, Any]:
    """Encode each caption once, as CLIP Text Encode does.

    Raises:
        ZipLoRAError: the CLIP belongs to another kind of model.
    """
    encoded = {}
    with torch.inference_mode():
        for caption in dict.fromkeys(captions):
            made = clip.encode_from_tokens_scheduled(clip.tokenize(caption))
            encoded[caption] = with_training_guidance(model, made)
            cond.check(encoded[caption], "clip", model)
    return encoded


class Conditioner:
    """An encoder of (caption, framing) pairs into conditioning, one per sample.

    Args:
        model: a `BaseModel` on its device.
        encode: a function from a caption to CONDITIONING.
        frozen: whether `encode` is constant, so that each pair is prepared once.
        device: the device of the model.
    """

    def __init__(
        self, model: Any, encode: Callable[[str], Any], frozen: bool, device: torch.device
    ) -> None:
        self.model, self.encode, self.frozen, self.device = model, encode, frozen, device
        self._prepared: dict[tuple[str, Framing], cond.Conditioning] = {}

    def __call__(self, requests: Sequence[tuple[str, Framing]]) -> list[cond.Conditioning]:
        prepared = self._prepared if self.frozen else {}
        encoded: dict[str, Any] = {}
        for caption, frame in requests:
            if (caption, frame) not in prepared:
                if caption not in encoded:
                    encoded[caption] = self.encode(caption)
                prepared[caption, frame] = self._prepare(encoded[caption], frame)
        return [prepared[request] for request in requests]

    def _prepare(self, conditioning: Any, frame: Framing) -> cond.Conditioning:
        (height, width), (top, left), target = frame.original, frame.crop, frame.target
        sizes = {"height": height, "width": width, "crop_h": top, "crop_w": left}
        sizes |= {"target_height": target[0], "target_width": target[1]}
        [[context, extras]] = conditioning
        like = torch.zeros(1, *latent_shape(self.model, *target), device=self.device)
        return cond.prepare(self.model, [[context, {**extras, **sizes}]], like)
