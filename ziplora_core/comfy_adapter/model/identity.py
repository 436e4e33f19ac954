"""The loaded MODEL, CLIP and VAE as inputs that a training's result depends on.

Weights are compared as the file has them, whatever the device's compute dtype. Patches on them are
compared separately: a LoRA of small strength would be lost in the weights' rounding. Only a few
values of each tensor are read, on the device where it is; nothing is moved to the card.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import comfy.model_sampling
from comfy.quant_ops import QuantizedTensor
from torch import Tensor

from ...training.resume_key import Inputs, sampled


def identify_model(model: Any) -> Inputs:
    """Return a MODEL's weights, patches, prediction type and noise schedule."""
    sampling = model.get_model_object("model_sampling")
    v = isinstance(sampling, comfy.model_sampling.V_PREDICTION)
    schedule = Inputs({"v": v}, {"sigmas": sampling.sigmas})
    return _of_patcher(model, "model", "diffusion_model.") | schedule


def identify_clip(clip: Any) -> Inputs:
    """Return a CLIP's weights, patches and encoding options."""
    how = [clip.layer_idx, clip.tokenizer_options, clip.use_clip_schedule]
    return _of_patcher(clip.patcher, "clip") | Inputs({"clip reads": how})


def identify_vae(vae: Any) -> Inputs:
    """Return a VAE's weights and patches."""
    return _of_patcher(vae.patcher, "vae")


def _of_patcher(patcher: Any, name: str, prefix: str = "") -> Inputs:
    """Sample the unpatched weights under a prefix, and their patches."""
    tensors: dict[str, Tensor] = {}
    for key, weight in patcher.model_state_dict().items():
        if key.startswith(prefix):
            backup = patcher.backup.get(key)  # set while patches are merged into the weight
            parts = _parts(key, weight if backup is None else backup.weight)
            tensors |= {f"{name} {part}": sampled(tensor) for part, tensor in parts.items()}
    patches = {
        key: _described(patches, f"{name} patch {key}", tensors)
        for key, patches in patcher.patches.items()
        if key.startswith(prefix)
    }
    return Inputs({f"{name} patches": patches}, tensors)


def _parts(key: str, weight: Tensor) -> Mapping[str, Tensor]:
    """Split a quantised weight into the tensors of its file."""
    return weight.state_dict(key) if isinstance(weight, QuantizedTensor) else {key: weight}


def _described(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Describe a patch as a JSON value, and add samples of its tensors to `tensors`."""
    if isinstance(value, Tensor):
        tensors[name] = sampled(value)
        return list(value.shape)
    if isinstance(value, list | tuple):
        return [_described(part, f"{name} {n}", tensors) for n, part in enumerate(value)]
    if value is None or isinstance(value, str | int | float):
        return value
    kind = getattr(value, "__qualname__", type(value).__qualname__)
    return [kind, _described(getattr(value, "weights", None), name, tensors)]
