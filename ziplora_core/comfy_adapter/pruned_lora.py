"""A LoRA on a MODEL without the smallest entries of its updates."""

from __future__ import annotations

from typing import Any

import torch
from comfy.model_management import cast_to_device
from comfy.weight_adapter.base import WeightAdapterBase
from torch import Tensor

from ..errors import problem
from ..lora import LoRA
from ..weight_entries import check_share, pruned
from .targets import resolve_some_unet, unet_targets


class PrunedLoRA(WeightAdapterBase):
    """The weight patch of one module: strength · delta, with its smallest entries zero.

    The dense delta is there only while ComfyUI patches this one weight. It has no low rank any
    more, so no LoRA file can hold it.

    Args:
        loaded_keys: as of every adapter; none.
        weights: up, down, alpha, and the share of the entries that is zeroed.
    """

    name = "pruned_lora"

    def __init__(self, loaded_keys: set[str], weights: Any) -> None:
        self.loaded_keys, self.weights = loaded_keys, weights

    def calculate_weight(
        self,
        weight: Tensor,
        key: str,
        strength: float,
        strength_model: float,
        offset: Any,
        function: Any,
        intermediate_dtype: torch.dtype = torch.float32,
        original_weight: Any = None,
    ) -> Tensor:
        """Add to `weight` in place, as ComfyUI's own LoRA does, and in the same order."""
        weights: Any = self.weights
        *factors, alpha, share = weights
        up, down = (cast_to_device(f, weight.device, intermediate_dtype) for f in factors)
        delta = torch.mm(up.flatten(1), down.flatten(1)).reshape(weight.shape)
        scale = 1.0 if alpha is None else alpha / len(down)
        weight += function(((strength * scale) * pruned(delta, share)).type(weight.dtype))
        return weight


def with_pruned_lora(
    model: Any, lora: LoRA, share: float, strength: float
) -> tuple[Any, list[str]]:
    """Put a LoRA's UNet part on a clone of MODEL, each module without its smallest entries.

    Args:
        model: ModelPatcher; it is not changed.
        lora: any LoRA.
        share: of each module's entries, zeroed; 0 leaves the LoRA whole.
        strength: times its own, either sign.

    Returns:
        the clone, and lines that say what is on it.

    Raises:
        ZipLoRAError: a share outside of 0…1, or nothing for this UNet in the LoRA.
    """
    check_share(share)
    factors = resolve_some_unet(lora, model.model)
    targets = unet_targets(model.model)
    patches = {
        targets[name]: PrunedLoRA(set(), (f.up, f.down, f.alpha, share))
        for name, f in factors.items()
    }
    clone = model.clone()
    if strength:
        clone.add_patches(patches, strength)
    entries = sum(f.up.shape[0] * f.down[0].numel() for f in factors.values())
    lines = [
        f"{lora.name} at {strength:g}: {len(factors)} modules, the smallest {share:.0%} of each "
        f"one's entries are zero (of {entries:,} in all)",
        "on this MODEL only: without them it has no low rank, so it is never saved as a LoRA",
    ]
    if text := len(lora.text_encoder()):
        lines.append(f"its {text} text-encoder modules are not used")
    return clone, lines


def refuse_pruned(model: Any, name: str) -> None:
    """Refuse a MODEL with a pruned LoRA on it where a LoRA is to be made of its weights.

    Raises:
        ZipLoRAError: there is one.
    """
    patches = (patch for each in model.patches.values() for patch in each)
    if any(isinstance(patch[1], PrunedLoRA) for patch in patches):
        raise problem(
            name,
            found="a pruned LoRA on it",
            expected="weights whose difference a LoRA can hold",
            advice="Connect the MODEL from before Prune LoRA; Resize LoRA makes a LoRA smaller.",
        )
