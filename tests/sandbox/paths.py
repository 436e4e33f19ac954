"""Where the sandbox keeps things; standard library only."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The pack itself."""

DEFAULT_SANDBOX = ROOT / ".sandbox"
SANDBOX = Path(os.environ.get("ZIPLORA_SANDBOX") or DEFAULT_SANDBOX).expanduser().absolute()
COMFYUI_PATH = os.environ.get("COMFYUI_PATH")
COMFYUI_PYTHON = os.environ.get("COMFYUI_PYTHON")

COMFYUI = Path(COMFYUI_PATH or SANDBOX / "ComfyUI").expanduser().absolute()
VENV = SANDBOX / "venv"
PYTHON = VENV / "bin" / "python"
BASE = SANDBOX / "base"
"""ComfyUI's base directory: models, custom_nodes, input, output and user."""


def use_comfyui() -> None:
    """Make `import comfy` work in this process, on the CPU; call it before any such import."""
    if not (COMFYUI / "comfy").is_dir():
        raise FileNotFoundError("There is no ComfyUI in the sandbox yet. Run `make setup` first.")
    if str(COMFYUI) not in sys.path:
        sys.path.insert(0, str(COMFYUI))
    from comfy.cli_args import args

    args.cpu = True
