"""The check of what was picked in a list of files or folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PureWindowsPath

from ...ziplora_core.comfy_adapter.folders import listed
from ...ziplora_core.errors import problem


def picked_names(
    options: Sequence[str], place: str, picked: Mapping[str, str | None]
) -> bool | str:
    r"""Validate the values of lists for ComfyUI, which shows an error before anything is queued.

    ComfyUI's own check compares letter by letter: on Linux it refuses the `sub\file` of a workflow
    from Windows. It leaves inputs alone that a node's `validate_inputs` names.

    Args:
        options: the names that exist.
        place: where they are, for the message.
        picked: the values by the name of their input, None for a linked one.
    """
    for name, value in picked.items():
        if value is not None and listed(str(value), options) is None:
            return str(
                problem(
                    name,
                    found=f"{value}, which is not in {place}",
                    expected="a name that is there",
                    advice=_advice(str(value), options),
                )
            )
    return True


def _advice(value: str, options: Sequence[str]) -> str:
    """Point to a file of the same name in another folder, if there is one."""
    leaf = PureWindowsPath(value).name
    for option in options:
        if PureWindowsPath(option).name == leaf:
            return f"Pick {option}, which has the same name."
    return "Press R to refresh the lists, and pick another one."
