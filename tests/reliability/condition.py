"""The condition of models, process and folders, which a fault may not change."""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import comfy.model_management
import safetensors.torch
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

HOOKS = (
    *("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"),
    *("_state_dict_hooks", "_load_state_dict_pre_hooks"),
)
PATCHES = (
    *("patches", "object_patches", "weight_wrapper_patches", "hook_patches", "wrappers"),
    *("callbacks", "injections", "attachments", "additional_models", "model_options"),
)


def condition(models: Mapping[str, Any]) -> dict[str, str]:
    """Describe all that a run may not change: models by content, and the process's modes."""
    found = {
        f"{name}, {what}": said
        for name, part in models.items()
        for what, said in _model(_patcher(part)).items()
    }
    management = comfy.model_management
    modes = {
        "in_training": management.in_training,
        "training_fp8_bwd": management.training_fp8_bwd,
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "dtype": torch.get_default_dtype(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
    return found | {mode: str(value) for mode, value in modes.items()}


def _model(patcher: Any) -> dict[str, str]:
    network: nn.Module = patcher.model
    return {
        "weights": digest(network.state_dict()),
        "hooks": str([n for n, m in network.named_modules() if any(getattr(m, h) for h in HOOKS)]),
        "forwards": str([n for n, m in network.named_modules() if "forward" in vars(m)]),
        "training": str([n for n, m in network.named_modules() if m.training]),
        "gradients": str([n for n, p in network.named_parameters() if p.grad is not None]),
        "requires_grad": str([n for n, p in network.named_parameters() if p.requires_grad]),
        "injected": str(patcher.is_injected),
        **{name: repr(getattr(patcher, name, None)) for name in PATCHES},
    }


def digest(tensors: Mapping[str, Any]) -> str:
    """Hash tensors by name, shape, dtype and bytes."""
    found = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        found.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        found.update(flat.view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def live_bytes(models: Mapping[str, Any]) -> int:
    """Count the bytes of tensors made since `gc.freeze`, after models were unloaded.

    Those of the models themselves do not count: ComfyUI puts a copy of a weight back when it takes
    a LoRA off.
    """
    comfy.model_management.unload_all_models()
    gc.collect()
    own = {
        tensor.untyped_storage().data_ptr()
        for part in map(_patcher, models.values())
        for tensor in part.model.state_dict().values()
    }
    found = [o for o in gc.get_objects() if issubclass(type(o), torch.Tensor)]
    found = [tensor for tensor in found if not isinstance(tensor, FakeTensor)]  # without memory
    stores = [t.untyped_storage() for t in found if t.layout == torch.strided]
    bytes_of = {store.data_ptr(): store.nbytes() for store in stores}
    return sum(size for place, size in bytes_of.items() if place not in own)


def _patcher(part: Any) -> Any:
    """Return the ModelPatcher of a CLIP or VAE, or the MODEL, which is one."""
    return getattr(part, "patcher", part)


def temporary_files(folder: Path) -> list[str]:
    """List files with a name that only a file has that is being written."""
    hidden = (p for p in folder.rglob("*") if p.name.startswith(".") or p.suffix == ".tmp")
    return sorted(str(path.relative_to(folder)) for path in hidden)


def partial_files(folder: Path) -> list[str]:
    """List files with a final name that cannot be read to their end."""
    found = []
    for path in folder.rglob("*"):
        if not path.is_file() or path.name.startswith("."):
            continue
        try:
            _read(path)
        except Exception as error:  # noqa: BLE001 (any failure is what is looked for)
            found.append(f"{path.relative_to(folder)}: {type(error).__name__}")
    return found


def _read(path: Path) -> None:
    if path.suffix == ".safetensors":
        safetensors.torch.load(path.read_bytes())
    elif path.suffix == ".pt":
        torch.load(path, map_location="cpu", weights_only=True)
    elif path.suffix == ".json":
        json.loads(path.read_text(encoding="utf-8"))
    elif not path.stat().st_size:
        raise ValueError("empty")
