"""The positive and the negative prompt of each sample, whatever node asks for its prediction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from comfy.patcher_extension import WrappersMP

from ...errors import problem

_POSITIVE, _NEGATIVE = "positive", "negative"
"""The names of the prompts in ComfyUI's ordinary guiders."""
_HALVES = {0: _POSITIVE, 1: _NEGATIVE}
"""The values of `cond_or_uncond` in ordinary guidance."""
_UNKNOWN = "a prompt that is not the guider's"
_NAMES = "ziplora_prompts"


def name_prompts(patcher: Any, key: str) -> None:
    """Have each prediction of a clone of MODEL know its prompts' names; see `conditional`."""
    patcher.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, key, _naming)


def _naming(
    executor: Any, x: Any, timestep: Any, model_options: Mapping[str, Any], *args: Any, **rest: Any
) -> Any:
    """Pass the names of the guider's prompts on, by ComfyUI's id of a prompt.

    A prompt of an area is copied under its id into the other half: it has no name there.
    """
    named = [
        (cond["uuid"], name)
        for name, conds in executor.class_obj.conds.items()
        for cond in conds or ()
        if "uuid" in cond
    ]
    times = Counter(uuid for uuid, _ in {*named})
    names = {uuid: name if times[uuid] == 1 else None for uuid, name in named}
    options = {**model_options.get("transformer_options", {}), _NAMES: names}
    return executor(x, timestep, {**model_options, "transformer_options": options}, *args, **rest)


def conditional(
    transformer_options: Mapping[str, Any], samples: int, needed_by: str
) -> Sequence[bool]:
    """Say of each sample of a batch whether it is of the positive prompt.

    `cond_or_uncond` counts the prompts of one batch only: SelfAttentionGuidance and the guider of
    two MODELs predict the negative prompt alone, as number 0, and PerpNeg a third one. So prompts
    go by their names, as far as they have some.

    Args:
        transformer_options: ComfyUI's, with the prompt of each of the equal pieces of the batch.
        samples: the size of the batch.
        needed_by: the node or input that needs to know, for the message.

    Raises:
        ZipLoRAError: a guider with other prompts than a positive and a negative one.
    """
    halves = transformer_options.get("cond_or_uncond", [0])
    names = transformer_options.get(_NAMES, {})
    uuids = transformer_options.get("uuids", []) if names else [None] * len(halves)
    found = [
        names.get(uuid, _UNKNOWN if names else None) or _HALVES.get(half)
        for uuid, half in zip(uuids, halves, strict=True)
    ]
    if not {*found} <= {_POSITIVE, _NEGATIVE}:
        raise problem(
            "guider",
            found="a guidance with more than a positive and a negative prompt",
            expected="ordinary guidance (KSampler, CFGGuider, BasicGuider)",
            advice=f"Use one of these with {needed_by}: with other guiders it cannot tell which "
            "prompt is the positive one.",
        )
    each = samples // len(halves)
    return [name == _POSITIVE for name in found for _ in range(each)]
