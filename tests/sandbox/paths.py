"""Paths and device of the sandbox; standard library only."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The repository, which is the pack."""

DEFAULT_SANDBOX = ROOT / ".sandbox"
SANDBOX = Path(os.environ.get("ZIPLORA_SANDBOX") or DEFAULT_SANDBOX).expanduser().absolute()
COMFYUI_PATH = os.environ.get("COMFYUI_PATH")
COMFYUI_PYTHON = os.environ.get("COMFYUI_PYTHON")

COMFYUI = Path(COMFYUI_PATH or SANDBOX / "ComfyUI").expanduser().absolute()
VENV = SANDBOX / "venv"
PYTHON = VENV / "bin" / "python"
BASE = SANDBOX / "base"
"""ComfyUI's base directory: models, custom_nodes, input, output and user."""

DEVICE = os.environ.get("DEVICE", "cpu")
"""ComfyUI's device: `cpu`, `pretend` (tests/accelerator/pretend), or else the card it finds."""
PRETEND = ROOT / "tests" / "accelerator" / "pretend"
"""Added to the import path of a process that uses the pretend accelerator."""


def use_comfyui() -> None:
    """Make `import comfy` work in this process, on DEVICE; call it before any such import.

    A card computes in float32, so that comparisons are exact, unless a test's MODEL says otherwise.
    """
    if not (COMFYUI / "comfy").is_dir():
        raise FileNotFoundError("There is no ComfyUI in the sandbox yet. Run `make setup` first.")
    if str(COMFYUI) not in sys.path:
        sys.path.insert(0, str(COMFYUI))
        import utils  # noqa: F401 (before its nodes.py puts comfy/, which has a utils.py, first)
    if DEVICE == "pretend":
        sys.path.append(str(PRETEND))
        os.environ.setdefault("PRETEND_BUILD", str(SANDBOX / "pretend"))
    from comfy.cli_args import args

    args.cpu = DEVICE == "cpu"
    args.force_fp32 = DEVICE != "cpu"
    if DEVICE != "cpu":  # TF32 has the exponent of float32 and the digits of float16
        import torch

        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def device_options(force_float32: bool = True) -> list[str]:
    """Make ComfyUI's command-line options for DEVICE."""
    if DEVICE == "cpu":
        return ["--cpu"]
    return ["--force-fp32"] if force_float32 else []


def device_environment() -> dict[str, str]:
    """Make the environment variables with which a ComfyUI process finds DEVICE."""
    if DEVICE == "cpu":
        return {}
    if DEVICE != "pretend":
        return {"NVIDIA_TF32_OVERRIDE": "0"}
    path = os.pathsep.join(filter(None, [str(PRETEND), os.environ.get("PYTHONPATH")]))
    return {"PYTHONPATH": path, "PRETEND_BUILD": str(SANDBOX / "pretend")}
