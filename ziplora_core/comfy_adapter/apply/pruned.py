"""LoRAs on a MODEL without the smallest entries of their updates."""

from __future__ import annotations

from typing import Any

import torch
from comfy.model_management import cast_to_device
from comfy.weight_adapter.base import WeightAdapterBase
from torch import Tensor

from ...errors import problem
from ...lora.factors import LoRA
from ...lora.pruning import check_share, pruned
from ..model.targets import resolve_some_unet, unet_targets


class PrunedLoRA(WeightAdapterBase):
    """The weight patch of one module: strength · delta, with its smallest entries set to zero.

    The dense delta exists only while ComfyUI patches this weight. It no longer has a low rank, so
    no LoRA file can hold it.

    Args:
        loaded_keys: an empty set; every adapter takes one.
        weights: up, down, alpha, and the share of the entries to zero.
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
        """Add the update to `weight` in place, in the order of ComfyUI's own LoRA patch."""
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
        model: the ModelPatcher, which is not changed.
        lora: any LoRA.
        share: the share of each module's entries to zero; 0 leaves the LoRA unchanged.
        strength: the factor on the LoRA's update, of either sign.

    Returns:
        the clone, and report lines about the LoRA on it.

    Raises:
        ZipLoRAError: a share outside of 0…1, or no module of the LoRA belongs to this UNet.
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
        f"module's entries are zero ({entries:,} entries in total)",
        "on this MODEL only: the pruned update has no low rank, so it is never saved as a LoRA",
    ]
    if text := len(lora.text_encoder()):
        lines.append(f"its {text} text-encoder modules are not used")
    return clone, lines


def refuse_pruned(model: Any, name: str) -> None:
    """Refuse a MODEL with a pruned LoRA on it where a LoRA is made from its weights.

    Args:
        model: the ModelPatcher to check.
        name: the input's name, for the message.

    Raises:
        ZipLoRAError: the MODEL has a pruned LoRA on it.
    """
    patches = (patch for each in model.patches.values() for patch in each)
    if any(isinstance(patch[1], PrunedLoRA) for patch in patches):
        raise problem(
            name,
            found="a pruned LoRA on it",
            expected="weights whose difference a LoRA can hold",
            advice="Connect the MODEL without Prune LoRA; Resize LoRA makes a LoRA smaller.",
        )
