"""Inputs that the page shows only where they have an effect."""

from __future__ import annotations

from typing import Any


def used_with(choice: str, *values: str) -> dict[str, Any]:
    """Return the keyword of an input that has an effect with some values of a choice only.

    `js/inputs.js` hides it with all others, unless something is connected to it. The prompt always
    has it, so that programs see the same inputs whatever was chosen.

    Args:
        choice: id of the combo.
        values: with these the input is shown.
    """
    return {"extra_dict": {"ziplora_used_with": {choice: list(values)}}}
