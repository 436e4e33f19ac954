"""Private copies of a MODEL or CLIP for training, and their compute dtype."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.ops
import torch
from comfy.quant_ops import QuantizedTensor

from ...errors import problem


def compute_dtype(device: torch.device, backward: bool = True) -> torch.dtype:
    """Return bf16 if ComfyUI uses it on this device, else float32.

    A card without bf16 (RTX 20, T4) uses fp16 only without a backward pass, as gradients underflow
    in fp16.
    """
    if comfy.model_management.should_use_bf16(device):
        return torch.bfloat16
    if not backward and comfy.model_management.should_use_fp16(device):
        return torch.float16
    return torch.float32


def set_compute_dtype(patcher: Any, dtype: torch.dtype) -> None:
    """Set the compute dtype of a private copy of a MODEL.

    Quantised weights (fp8) stay as they are, and ComfyUI casts them layer by layer. That holds with
    `--fast fp8_matrix_mult`, too: fp8 matrix products have no backward pass, so a teacher would use
    them and its student would not.
    """
    if convert(patcher, patcher.model.diffusion_model, dtype):
        patcher.add_object_patch("manual_cast_dtype", dtype)
        return
    patcher.set_model_compute_dtype(dtype)
    for name, layer in patcher.model.named_modules():
        if isinstance(layer, comfy.ops.fp8_ops.Linear):
            patcher.add_weight_wrapper(f"{name}.weight", _as_it_is)


def _as_it_is(weight: torch.Tensor) -> torch.Tensor:
    """Return the weight; a layer that has any weight function casts its weight."""
    return weight


def is_quantised(weight: torch.Tensor) -> bool:
    """Return whether a weight is in one of ComfyUI's packed formats, whatever its `dtype` says."""
    return isinstance(weight.data, QuantizedTensor)


def convert(patcher: Any, network: torch.nn.Module, dtype: torch.dtype) -> bool:
    """Convert weights to `dtype` once: if every layer cast them, autograd would keep the copies.

    Returns:
        False if weights are quantised (fp8 or packed), in which case none is changed.
    """
    ordinary = {torch.float16, torch.bfloat16, torch.float32}
    quantised = any(map(is_quantised, network.parameters()))
    if quantised or not {p.dtype for p in network.parameters()} <= ordinary:
        return False
    network.to(dtype)
    patcher.size = 0  # recomputed for the new dtype
    return True


@contextmanager
def in_training() -> Iterator[None]:
    """Have ComfyUI use kernels that have a backward pass, and an exact one instead of fp8.

    ComfyUI's own training node does not reset `training_fp8_bwd` after its run.
    """
    management = comfy.model_management
    before = management.in_training, management.training_fp8_bwd
    management.in_training, management.training_fp8_bwd = True, False
    try:
        yield
    finally:
        management.in_training, management.training_fp8_bwd = before


def private_copy(model: Any) -> Any:
    """Copy a MODEL to a plain, private ModelPatcher whose weights autograd can use.

    The copy is loaded again from the file if ComfyUI can do that. Otherwise (some custom loaders)
    the MODEL is unloaded and copied in memory, unless its weights are loaded dynamically.

    Raises:
        ZipLoRAError: the MODEL is dynamic and cannot be loaded again.
    """
    if model.cached_patcher_init is not None:
        return model.clone(disable_dynamic=True, force_deepcopy=True)
    if model.is_dynamic():
        raise problem(
            "model",
            found="dynamically loaded weights without a way to load them again",
            expected="a MODEL from a stock loader",
            advice="Use Load Checkpoint or Load Diffusion Model, or start ComfyUI with "
            "--disable-dynamic-vram.",
        )
    comfy.model_management.unload_model_and_clones(model)
    original = model.model
    shared = [getattr(original, name, None) for name in ("model_config", "current_patcher")]
    known = {id(part): part for part in shared}
    for weight in filter(is_quantised, original.parameters()):  # deepcopy fails on them
        known[id(weight)] = torch.nn.Parameter(weight.detach().clone(), requires_grad=False)
    copied = copy.deepcopy(original, known)
    return model.clone(model_override=(copied, ({}, {}, {}, set())))


def source_name(model: Any) -> str:
    """Return the name of a MODEL's file without its folder, empty if it is unknown."""
    arguments = model.cached_patcher_init[1] if model.cached_patcher_init else ()
    return Path(arguments[0]).name if arguments and isinstance(arguments[0], str) else ""


def refuse_patched(model: Any, name: str = "model") -> None:
    """Refuse a MODEL or CLIP with more on it than weight patches: sampling would differ.

    A network that another node has put in place of the MODEL's own (`torch.compile`) is refused,
    too: copies of the MODEL share it, so training would change it.

    Raises:
        ZipLoRAError: there is an injection, wrapper, patch, function or other network on it; the
            message names each.
    """
    options = model.model_options.get("transformer_options", {})
    found = [f"injection {key}" for key in model.injections]
    found += [
        f"wrapper {key or kind}"
        for kind, wrappers in {**model.wrappers, **options.get("wrappers", {})}.items()
        for key in wrappers
    ]
    found += [f"patch {key}" for key in options.get("patches", {})]
    found += [f"replacement {key}" for key in options.get("patches_replace", {})]
    found += [f"patched {key}" for key in model.object_patches if _is_network(key)]
    if "model_function_wrapper" in model.model_options:
        found.append("a model function wrapper")
    if found:
        raise problem(
            name,
            found=", ".join(dict.fromkeys(found)),
            expected="a checkpoint, with or without LoRAs, and nothing else on it",
            advice=f"Connect the {name.upper()} from before the slider, FreeU or wrapper node, and "
            "apply that node afterwards.",
        )


def _is_network(key: str) -> bool:
    """Return whether an object patch replaces (a part of) a network, not the sampling object."""
    return key.partition(".")[0] in ("diffusion_model", "clip_l", "clip_g")
