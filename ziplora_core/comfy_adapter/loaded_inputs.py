"""What a person has loaded, as part of what a training depends on: MODEL, CLIP and VAE.

Weights are those of the file, whatever dtype the device computes in, with the patches on them
apart: a LoRA of small strength would be lost in their rounding. A few numbers of each are taken
where they are; nothing goes through the card.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import comfy.model_sampling
from comfy.quant_ops import QuantizedTensor
from torch import Tensor

from ..resume_key import Inputs, sampled


def of_model(model: Any) -> Inputs:
    """Describe a MODEL: weights, patches, prediction type and noise schedule."""
    sampling = model.get_model_object("model_sampling")
    v = isinstance(sampling, comfy.model_sampling.V_PREDICTION)
    schedule = Inputs({"v": v}, {"sigmas": sampling.sigmas})
    return _of_patcher(model, "model", "diffusion_model.") | schedule


def of_clip(clip: Any) -> Inputs:
    """Describe a CLIP: weights, patches, and how it reads."""
    how = [clip.layer_idx, clip.tokenizer_options, clip.use_clip_schedule]
    return _of_patcher(clip.patcher, "clip") | Inputs({"clip reads": how})


def of_vae(vae: Any) -> Inputs:
    """Describe a VAE by its weights."""
    return _of_patcher(vae.patcher, "vae")


def _of_patcher(patcher: Any, name: str, prefix: str = "") -> Inputs:
    """Sample the weights under a prefix without their patches, and the patches."""
    tensors: dict[str, Tensor] = {}
    for key, weight in patcher.model_state_dict().items():
        if key.startswith(prefix):
            backup = patcher.backup.get(key)  # where patches are in the weight at the moment
            parts = _parts(key, weight if backup is None else backup.weight)
            tensors |= {f"{name} {part}": sampled(tensor) for part, tensor in parts.items()}
    patches = {
        key: _described(patches, f"{name} patch {key}", tensors)
        for key, patches in patcher.patches.items()
        if key.startswith(prefix)
    }
    return Inputs({f"{name} patches": patches}, tensors)


def _parts(key: str, weight: Tensor) -> Mapping[str, Tensor]:
    """Take a quantised weight apart into what its file has."""
    return weight.state_dict(key) if isinstance(weight, QuantizedTensor) else {key: weight}


def _described(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Describe a patch as JSON has it, and sample the tensors in it."""
    if isinstance(value, Tensor):
        tensors[name] = sampled(value)
        return list(value.shape)
    if isinstance(value, list | tuple):
        return [_described(part, f"{name} {n}", tensors) for n, part in enumerate(value)]
    if value is None or isinstance(value, str | int | float):
        return value
    kind = getattr(value, "__qualname__", type(value).__qualname__)
    return [kind, _described(getattr(value, "weights", None), name, tensors)]
