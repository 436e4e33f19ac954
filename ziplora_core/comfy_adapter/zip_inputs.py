"""What a merge is learned from: its prompts as they come, and all of it as a hash."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..checkpoint import fingerprint
from ..errors import problem
from ..options import ZipSettings
from ..pairing import LoRAPair, ModulePair
from .training_model import TrainingModel


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


def inputs_hash(
    opened: TrainingModel,
    pairs: Mapping[str, ModulePair],
    prompts: Sequence[Prompt],
    latents: Sequence[Tensor | None],
    settings: ZipSettings,
) -> str:
    """Hash everything the result depends on, the patched base included.

    Args:
        opened: the loaded model.
        pairs: of both networks, by kohya name.
        prompts: with `latents` of their reference pictures, in the model's own scale.
        settings: the node's.
    """
    tensors = opened.fingerprint()
    for name, pair in pairs.items():
        for half, factors in zip(("content", "style"), pair.factors, strict=True):
            if factors is not None:
                tensors[f"{half} {name} down"] = factors.down
                tensors[f"{half} {name} up"] = factors.scale * factors.up
    extras = []
    for prompt, pictures in zip(prompts, latents, strict=True):
        context, others = prompt.conditioning[0]
        tensors[f"{prompt.name} context"] = context
        tensors |= {f"{prompt.name} {k}": v for k, v in others.items() if torch.is_tensor(v)}
        extras.append({k: v for k, v in others.items() if not torch.is_tensor(v)})
        if pictures is not None:
            tensors[f"{prompt.name} latents"] = pictures
    said = asdict(settings) | {"extras": extras, "v": opened.v_prediction}
    said["options"].pop("resume")
    return fingerprint(said, tensors)
