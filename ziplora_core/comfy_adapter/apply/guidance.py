"""LoRAs on a MODEL that act less, or not at all, in the unconditional half of guidance."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP

from ...lora.factors import LoRA, LoraFactors
from ...training.branches import Branches, Gates
from ..model.branch_hooks import compiled_lines, refuse_several_devices, uncompiled
from ..model.sampling_hooks import SamplingHooks
from ..model.targets import resolve_unet, unet_targets
from .halves import conditional, name_prompts
from .lora import apply_lora


def with_merge(
    model: Any, modules: Mapping[str, LoraFactors], name: str, negative_strength: float
) -> tuple[Any, list[str]]:
    """Put a LoRA on a clone of MODEL: by ComfyUI's own patches where both halves have the same.

    See `with_negative_strength`.
    """
    if negative_strength == 1:
        return apply_lora(modules, name, model, None)[0], []
    return with_negative_strength(model, modules, name, negative_strength)


def with_negative_strength(
    model: Any, modules: Mapping[str, LoraFactors], name: str, negative_strength: float
) -> tuple[Any, list[str]]:
    """Put a LoRA on a clone of MODEL, at another strength in the unconditional half of guidance.

        ε = ε(∅, w ΔW) + s (ε(c, ΔW) − ε(∅, w ΔW))

    s is the CFG scale and w the negative strength. With w = 1 it is the LoRA of any loader. With
    w = 0 the negative prompt is predicted by the base model, so that guidance leads towards what
    the LoRA has learned, too (LoRAtorio, arXiv:2508.11624; CRAFT-LoRA, arXiv:2602.18936).

    Args:
        model: the ModelPatcher, which is not changed.
        modules: the LoRA's UNet factors by kohya module name.
        name: the LoRA's name, for messages.
        negative_strength: w, a factor on the LoRA's own strength.

    Returns:
        the clone, and report lines about the LoRA on it.

    Raises:
        ZipLoRAError: a module has no place in this UNet, or a MODEL on several devices.
    """
    refuse_several_devices(model)
    factors = resolve_unet(LoRA(name, modules), model.model)
    if not factors:
        return model, []
    targets = unet_targets(model.model)
    hooks = SamplingHooks(
        {targets[key]: Branches([f]) for key, f in factors.items()},
        f"{name} with another strength in the negative prompt",
    )
    key = f"ziplora_negative_{uuid.uuid4().hex}"
    clone = model.clone()
    hooks.put_on(clone, key)
    name_prompts(clone, key)
    clone.add_wrapper_with_key(WrappersMP.APPLY_MODEL, key, _by_half(hooks, negative_strength))
    return clone, compiled_lines(model)


def _by_half(hooks: SamplingHooks, negative_strength: float) -> Callable[..., Any]:
    """Make a wrapper that opens the branches, less for the unconditional samples."""

    placed: dict[tuple[Any, ...], Gates | None] = {}  # a copy to the device would synchronise

    def follow(
        executor: Any, x: Any, t: Any, c_concat: Any, c_crossattn: Any, control: Any,
        transformer_options: Any, *args: Any, **kwargs: Any,
    ) -> Any:  # fmt: skip
        outer = hooks.gates
        halves = conditional(transformer_options, len(x), "negative_strength")
        key = x.device, *halves
        if key not in placed:
            strengths = torch.tensor([[1.0 if half else negative_strength] for half in halves])
            place = x.device, executor.class_obj.get_dtype_inference()
            placed[key] = Gates(strengths.to(*place)) if strengths.any() else None
        hooks.gates = placed[key]
        try:
            with uncompiled():
                return executor(
                    x, t, c_concat, c_crossattn, control, transformer_options, *args, **kwargs
                )
        finally:
            hooks.gates = outer

    return follow
