"""What a merge is learned from: its prompts as they come, and all that the result depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import problem
from ..options import ZipSettings
from ..pairing import LoRAPair, ModulePair
from ..resume_key import Inputs, counted, digest
from .loaded_inputs import of_model


@dataclass(frozen=True)
class Prompt:
    """One prompt's inputs as the node receives them; `name` is content, style or joint."""

    name: str
    conditioning: Any
    latent: Any | None = None


def refuse_strength_zero(pair: LoRAPair) -> None:
    """Refuse a LoRA that adds nothing: the other one would be fitted to its absence.

    Raises:
        ZipLoRAError: a strength is 0.
    """
    for concept, strength in (("content", pair.content_strength), ("style", pair.style_strength)):
        if strength == 0:
            raise problem(
                f"{concept}_strength",
                found="0: this LoRA adds nothing",
                expected="the strength at which it looks right alone, usually 1",
                advice="Set it in Load LoRA Pair; to use the other LoRA alone, load it with an "
                "ordinary LoRA loader. How strong each is can be chosen after the merge.",
            )


def merge_inputs(
    model: Any,
    pairs: Mapping[str, ModulePair],
    prompts: Sequence[Prompt],
    latents: Sequence[Tensor | None],
    settings: ZipSettings,
) -> Inputs:
    """Name all that the result depends on.

    A CONDITIONING and a LATENT come without the words and the pictures they were made of, so they
    themselves are compared.

    Args:
        model: the person's MODEL.
        pairs: of both networks, by kohya name.
        prompts: with `latents` of their reference pictures, in the model's own scale.
        settings: the node's.
    """
    factors: dict[str, Tensor] = {}
    for name, pair in pairs.items():
        for half, own in zip(("content", "style"), pair.factors, strict=True):
            if own is not None:
                factors[f"{half} {name} down"] = own.down
                factors[f"{half} {name} up"] = own.scale * own.up
    texts: dict[str, Tensor] = {}
    extras = []
    for prompt in prompts:
        context, others = prompt.conditioning[0]
        texts[f"{prompt.name} context"] = context
        texts |= {f"{prompt.name} {k}": v for k, v in others.items() if torch.is_tensor(v)}
        extras.append({k: v for k, v in others.items() if not torch.is_tensor(v)})
    shown = zip(prompts, latents, strict=True)
    pictures = {f"{prompt.name} latent": drawn for prompt, drawn in shown if drawn is not None}
    said = {**counted(settings, stops_early=True), "loras": digest(factors), "extras": extras}
    return of_model(model) | Inputs(said, prompts=texts, latents=pictures)
