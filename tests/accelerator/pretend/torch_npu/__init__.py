"""The pretend accelerator, as a third-party card that ComfyUI finds by `import torch_npu`.

With the folder above this one on the path, and without `--cpu`, ComfyUI uses it as its card;
nothing of ComfyUI is patched. `device.cpp` describes it. Environment: PRETEND_BUILD, the folder of
the compiled device; PRETEND_GIB, the card's memory (24).
"""

from __future__ import annotations

import fcntl
import os
import sys
import types
from pathlib import Path

import torch
from torch.utils.cpp_extension import load

_SOURCE = Path(__file__).resolve().parents[1] / "device.cpp"
_GIB = 2**30


def _compiled() -> types.ModuleType:
    """Compile the device, or load an earlier build of the same source."""
    build = Path(os.environ.get("PRETEND_BUILD") or Path.home() / ".cache/pretend_accelerator")
    build.mkdir(parents=True, exist_ok=True)
    beside = f"{Path(sys.executable).parent}{os.pathsep}"  # ninja, of this environment
    if not os.environ["PATH"].startswith(beside):
        os.environ["PATH"] = beside + os.environ["PATH"]
    flags, folder = ["-O1"], str(build)
    with open(build / "building", "w") as ours:
        fcntl.flock(ours, fcntl.LOCK_EX)  # ends with its process
        (build / "lock").unlink(missing_ok=True)  # PyTorch's own, left by a build that was killed
        return load("pretend_device", [str(_SOURCE)], build_directory=folder, extra_cflags=flags)


device = _compiled()
device.set_limit(int(float(os.environ.get("PRETEND_GIB", "24")) * _GIB))
"""Counts and limits: `counts()`, `reset()`, `set_limit(bytes)`, `refuse(from, until)`, ..."""

torch.version.cuda = None  # in case this PyTorch was built for another card
torch.utils.rename_privateuse1_backend("npu")


def _total() -> int:
    return int(float(os.environ.get("PRETEND_GIB", "24")) * _GIB)


class _Properties:
    name = "Pretend NPU"
    total_memory = _total()


def _stats(_device: object = None) -> dict[str, int]:
    used = device.counts()["used"]
    return {"active_bytes.all.current": used, "reserved_bytes.all.current": used}


_module = types.ModuleType("torch.npu")
_module.__dict__.update(
    device_count=lambda: 1,
    is_available=lambda: True,
    current_device=lambda: 0,
    set_device=lambda _device: None,
    synchronize=lambda _device=None: None,
    empty_cache=lambda: None,
    get_device_name=lambda _device=None: _Properties.name,
    get_device_properties=lambda _device=None: _Properties,
    mem_get_info=lambda _device=None: (_total() - device.counts()["used"], _total()),
    memory_stats=_stats,
    max_memory_allocated=lambda _device=None: device.counts()["peak"],
    reset_peak_memory_stats=lambda _device=None: device.reset(),
    manual_seed_all=lambda _seed: None,
    get_amp_supported_dtype=lambda: [torch.float16, torch.bfloat16],
    get_rng_state=lambda _device=None: torch.get_rng_state(),
    set_rng_state=lambda state, _device=None: torch.set_rng_state(state),
    _is_in_bad_fork=lambda: False,
)
torch._register_device_module("npu", _module)
sys.modules["torch.npu"] = _module
torch.utils.generate_methods_for_privateuse1_backend(
    for_tensor=True, for_module=True, for_storage=True
)
