"""The prompts of a learned merge, and the inputs that its result depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...errors import problem
from ...lora.pair import LoRAPair, ModulePair
from ...training.resume_key import Inputs, digest, settings_that_count
from ...ziplora.options import ZipLoRASettings
from ..model.identity import identify_model


@dataclass(frozen=True)
class Prompt:
    """The node's inputs for one prompt; `name` is content, style, joint, joint 2, …"""

    name: str
    conditioning: Any
    latent: Any | None = None

    @property
    def input(self) -> str:
        """The name of the node's input that it comes from."""
        return f"{self.name.split()[0]}_conditioning"


def joint_prompts(conditioning: Any | None) -> list[Prompt]:
    """Take the prompts of a CONDITIONING apart, which Conditioning (Combine) has joined."""
    if conditioning is None:
        return []
    entries = [[entry] for entry in conditioning] or [[]]  # an empty one is refused by its check
    return [Prompt(f"joint {n}" if n else "joint", entry) for n, entry in enumerate(entries)]


def check_joint_strengths(content: float, style: float) -> None:
    """Refuse strengths with which there is no joint picture to match.

    Raises:
        ZipLoRAError: both are 0, or one is outside 0…2.
    """
    for name, strength in (("joint_content", content), ("joint_style", style)):
        if not 0 <= strength <= 2:
            raise problem(
                name, found=f"{strength:g}", expected="0 to 2", advice="0.9 and 0.7 are usual."
            )
    if content == style == 0:
        raise problem(
            "joint_content and joint_style",
            found="0 and 0: neither LoRA is in the joint picture",
            expected="the strengths at which both together look right",
            advice="0.9 and 0.7 are usual; to leave the joint prompt out, disconnect it.",
        )


def refuse_strength_zero(pair: LoRAPair, settings: ZipLoRASettings) -> None:
    """Refuse a strength of 0: the merge would be fitted to the model without that LoRA.

    Raises:
        ZipLoRAError: a strength of the pair, or both of the joint picture, are 0.
    """
    check_joint_strengths(settings.joint_content, settings.joint_style)
    for concept, strength in (("content", pair.content_strength), ("style", pair.style_strength)):
        if strength == 0:
            raise problem(
                f"{concept}_strength",
                found="0: this LoRA adds nothing",
                expected="the strength at which it looks right alone, usually 1",
                advice="Set it in Load LoRA Pair; to use the other LoRA alone, load it with an "
                "ordinary LoRA loader. Both strengths can be changed after the merge.",
            )


def merge_inputs(
    model: Any,
    pairs: Mapping[str, ModulePair],
    prompts: Sequence[Prompt],
    latents: Sequence[Tensor | None],
    settings: ZipLoRASettings,
) -> Inputs:
    """Collect all inputs that the result depends on.

    The texts and pictures of a CONDITIONING and a LATENT are unknown, so their values are compared.

    Args:
        model: the user's MODEL.
        pairs: pairs of the UNet and the text encoders, by kohya name.
        prompts: the prompts.
        latents: latents of each prompt's reference pictures in the model's own scale, or None.
        settings: the node's settings.
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
    said = {
        **settings_that_count(settings, stops_early=True),
        "loras": digest(factors),
        "extras": extras,
    }
    return identify_model(model) | Inputs(said, prompts=texts, latents=pictures)
