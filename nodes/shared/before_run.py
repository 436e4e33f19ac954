"""Checks of what a node's widgets alone decide, which ComfyUI makes before anything runs.

ComfyUI frames the node and shows the error. It gives a node's `validate_inputs` None for a linked
input, and nothing for an input without a link; and it leaves to it all checks of the inputs that
its signature names, those of their ranges too.
"""

from __future__ import annotations

from collections.abc import Callable

from ...ziplora_core.errors import ZipLoRAError

UNLINKED = object()
"""The default of an optional input without a widget, in the signature of a `validate_inputs`."""


def checked(*checks: Callable[[], object]) -> bool | str:
    """Make the checks in turn, until one raises a ZipLoRAError or returns an error's text."""
    for check in checks:
        try:
            found = check()
        except ZipLoRAError as error:
            return str(error)
        if isinstance(found, str):
            return found
    return True


def unless_linked(check: Callable[..., object], *values: object) -> Callable[[], object]:
    """Make a check of values that are all known before the run: not of linked inputs, None here."""
    return lambda: True if any(value is None for value in values) else check(*values)
