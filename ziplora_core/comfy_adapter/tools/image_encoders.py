"""Embeddings of pictures and prompts from ComfyUI's CLIP_VISION models and SDXL's text encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.model_management
import torch
from torch import Tensor

from ...errors import problem

_FAMILIES = {"clip_vision_model": "CLIP", "dinov2": "DINOv2", "dinov3": "DINOv3"}
_KNOWN = {
    ("CLIP", 1664, 48): "ViT-bigG/14",
    ("CLIP", 1280, 32): "ViT-H/14",
    ("CLIP", 1024, 24): "ViT-L/14",
    ("DINOv2", 1536, 40): "ViT-g/14",
    ("DINOv2", 1024, 24): "ViT-L/14",
}
"""Published encoders by family, width and layers."""


def family_of(encoder: Any) -> str:
    """Return the kind of a CLIP_VISION: `CLIP`, `DINOv2`, `DINOv3`, or ComfyUI's name for it."""
    return _FAMILIES.get(encoder.model_type) or str(encoder.model_type)


def describe_encoder(encoder: Any) -> str:
    """Describe a CLIP_VISION from its config: `CLIP ViT-H/14`, `CLIP of 3 layers, 32 wide`."""
    family, config = family_of(encoder), encoder.config
    size = config.get("hidden_size", 0), config.get("num_hidden_layers", 0)
    known = _KNOWN.get((family, *size))
    return f"{family} {known}" if known else f"{family} of {size[1]} layers, {size[0]} wide"


def check_family(encoder: Any, name: str, families: Sequence[str], advice: str) -> None:
    """Refuse a CLIP_VISION of another kind.

    Args:
        encoder: the CLIP_VISION to check.
        name: the input's name, for the message.
        families: the allowed kinds.
        advice: the last sentence of the message.

    Raises:
        ZipLoRAError: an encoder of another kind; the message names it.
    """
    if family_of(encoder) not in families:
        raise problem(
            name,
            found=describe_encoder(encoder),
            expected=f"{' or '.join(families)} as CLIP_VISION",
            advice=advice,
        )


def encode_pictures(encoder: Any, pictures: Sequence[Tensor]) -> Tensor:
    """Encode pictures one by one as `(pictures, width)`, float32, on the CPU.

    The embedding is CLIP's projected embedding, or DINOv2's normalised class token. The encoder's
    own preprocessing scales the shorter side and crops the centre.

    Args:
        encoder: the CLIP_VISION.
        pictures: the pictures `(h, w, 3)` in 0…1.
    """
    rows = []
    for picture in pictures:
        comfy.model_management.throw_exception_if_processing_interrupted()
        with torch.inference_mode():
            rows.append(encoder.encode_image(picture[None], crop=True)["image_embeds"])
    return torch.cat(rows).float().cpu()


def encode_prompt(clip: Any, prompt: str, encoder: Any) -> Tensor:
    """Encode a prompt into the space of a CLIP_VISION, `(1, width)`: bigG's projected embedding.

    Args:
        clip: SDXL's CLIP.
        prompt: the prompt, of which at most 75 tokens count, as in CLIP itself.
        encoder: the CLIP_VISION to compare the result with.

    Raises:
        ZipLoRAError: a CLIP that is not SDXL's, or an encoder of another width.
    """
    big = getattr(clip.cond_stage_model, "clip_g", None)
    if big is None:
        raise problem(
            "clip",
            found=type(clip.cond_stage_model).__name__,
            expected="the CLIP of an SDXL checkpoint: its second text encoder is OpenCLIP bigG",
            advice="Connect the CLIP of Load Checkpoint.",
        )
    wanted = big.transformer.text_projection.weight.shape[0]
    found = encoder.config.get("projection_dim", encoder.config.get("hidden_size"))
    if found != wanted:
        raise problem(
            "clip_vision",
            found=f"{describe_encoder(encoder)}, whose embeddings have {found} numbers",
            expected=f"{wanted} numbers, as the prompt's: OpenCLIP ViT-bigG/14",
            advice="Load CLIP ViT-bigG/14's vision file (projection 1280), or leave prompt empty.",
        )
    with torch.inference_mode():
        _, pooled = clip.encode_from_tokens(clip.tokenize(prompt), return_pooled=True)
    return pooled[:1].float().cpu()
