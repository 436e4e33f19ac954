"""UnZipLoRA merges on a MODEL: content and style beside the layers, each with its own prompt."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...lora.factors import LoRA, LoraFactors
from ...lora.layers import reads_prompt
from ...lora.magnitude import huge_updates
from ...lora.merged import MergedLoRA
from ...training.branches import Branches, Gates, lengthened
from ...unziplora.objective import CONCEPTS
from ...unziplora.separate_prompts import refuse_other_merges
from ..model import conditioning as cond
from ..model.branch_hooks import SamplingHooks, compiled_lines, refuse_several_devices, uncompiled
from ..model.targets import resolve_unet, unet_targets
from .guidance import conditional


def with_unziplora(
    model: Any, merged: MergedLoRA, prompts: Sequence[Any], strengths: Sequence[float] = (1.0, 1.0)
) -> tuple[Any, list[str]]:
    """Put a content and a style LoRA on a clone of MODEL, with separate prompts as in training.

        K|V = W0 x + w_c ΔW_c x_c + w_s ΔW_s x_s        in attn2; every other layer reads its input

    x is the sampler's prompt (UnZipLoRA, arXiv:2412.04465). Prompts of different lengths are
    repeated to a common one, as ComfyUI does in a batch. The unconditional half of guidance has
    no positive prompt: there K and V are those of the base model.

    Args:
        model: the ModelPatcher, which is not changed.
        merged: a merge from UnZipLoRA training, loaded, recombined or imported.
        prompts: the CONDITIONING of content and of style, x_c and x_s.
        strengths: w_c and w_s.

    Returns:
        the clone, and report lines about the LoRAs on it.

    Raises:
        ZipLoRAError: a merge of another kind or for another model, a CONDITIONING with several
            entries, or a MODEL on several devices.
    """
    refuse_other_merges(merged, "merged")
    refuse_several_devices(model)
    for concept, prompt in zip(CONCEPTS, prompts, strict=True):
        cond.check(prompt, f"{concept}_conditioning", model.model)
    halves = [
        resolve_unet(LoRA(f"{concept} of the merge", modules), model.model)
        for concept, modules in zip(
            CONCEPTS,
            (merged.modules(strengths[0], 0.0), merged.modules(0.0, strengths[1])),
            strict=True,
        )
    ]
    targets = unet_targets(model.model)
    branches = {
        targets[name]: Branches([half.get(name) for half in halves], reads_prompt(name))
        for name in sorted({*halves[0], *halves[1]})
    }
    read = cond.contexts(prompts)
    lines = _lines(merged, halves, strengths, read.shape[1])
    if not branches:
        return model, lines
    lines += [*compiled_lines(model), *(line for half in halves for line in huge_updates(half))]
    hooks = SamplingHooks(branches)
    key = f"ziplora_unzip_{uuid.uuid4().hex}"
    clone = model.clone()
    hooks.put_on(clone, key)
    clone.add_wrapper_with_key(WrappersMP.APPLY_MODEL, key, _reading(hooks, read))
    return clone, lines


def _reading(hooks: SamplingHooks, prompts: Tensor) -> Callable[..., Any]:
    """Make a wrapper that opens the branches, each sample with its own prompts."""

    placed: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def follow(
        executor: Any, x: Tensor, t: Any, c_concat: Any, c_crossattn: Any, control: Any,
        transformer_options: Any, *args: Any, **kwargs: Any,
    ) -> Any:  # fmt: skip
        outer = hooks.gates
        place = x.device, executor.class_obj.get_dtype_inference()
        if place not in placed:
            placed[place] = prompts.to(*place)
        halves = conditional(transformer_options, len(x), "Apply UnZipLoRA")
        hooks.gates = Gates(prompts=_by_sample(placed[place], halves))
        c_crossattn = lengthened(c_crossattn, hooks.gates.prompts)
        try:
            with uncompiled():
                return executor(
                    x, t, c_concat, c_crossattn, control, transformer_options, *args, **kwargs
                )
        finally:
            hooks.gates = outer

    return follow


def _by_sample(prompts: Tensor, halves: Sequence[bool]) -> Tensor:
    """Compute the prompts `(sample, branch, token, width)` of a batch, zero if unconditional.

    ComfyUI may run the negative prompt separately, at another length: a batch with no positive half
    gets one token of zeros, which fits any length.

    Args:
        prompts: the prompts `(branch, token, width)`.
        halves: whether each sample is conditional.
    """
    if not any(halves):
        return prompts.new_zeros(len(halves), len(prompts), 1, prompts.shape[-1])
    nothing = torch.zeros_like(prompts)
    return torch.stack([prompts if half else nothing for half in halves])


def _lines(
    merged: MergedLoRA,
    halves: Sequence[Mapping[str, LoraFactors]],
    strengths: Sequence[float],
    tokens: int,
) -> list[str]:
    """Describe both LoRAs and their prompts."""
    lines = [
        f"{concept} at {strength:g}: {len(half)} modules, {sum(map(reads_prompt, half))} of them "
        "read its own prompt"
        for concept, strength, half in zip(CONCEPTS, strengths, halves, strict=True)
    ]
    if text := len(merged.text_encoder):
        lines.append(f"WARNING: its {text} text-encoder modules are not applied")
    return [*lines, f"prompts of {tokens} tokens each"]
