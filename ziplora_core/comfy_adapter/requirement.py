"""The oldest ComfyUI that the pack works with."""

from __future__ import annotations

import re

from ..errors import problem

OLDEST = "0.24.0"
"""As in `requires-comfyui` of pyproject.toml; the oldest that `make matrix` tests."""


def comfyui_version() -> str:
    """Return the version of the running ComfyUI; 0.0 for one from before it said so."""
    try:
        from comfyui_version import __version__
    except ModuleNotFoundError:
        return "0.0"
    return __version__


def require_comfyui(found: str) -> None:
    """Refuse a ComfyUI that lacks functions which training and merging call.

    A version without numbers, e.g. of a fork, is not refused.

    Args:
        found: the version, as in ComfyUI's `comfyui_version.py`.

    Raises:
        ZipLoRAError: it is older than `OLDEST`.
    """
    numbers = _numbers(found)
    if numbers and numbers < _numbers(OLDEST):
        raise problem(
            "ComfyUI",
            found=f"version {found}",
            expected=f"{OLDEST} or later",
            advice="Update ComfyUI and restart it: until then, the nodes of this pack are missing.",
        )


def _numbers(version: str) -> tuple[int, ...]:
    """Return the numbers `(major, minor, patch)` of a version, empty if it has none."""
    found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", version)
    return tuple(int(number or 0) for number in found.groups()) if found else ()
