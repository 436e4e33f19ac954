"""Inputs that the page shows only where they have an effect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io

_USED_WITH = "ziplora_used_with"


def used_with(choice: str, *values: str) -> dict[str, Any]:
    """Return the keyword of an input that has an effect with some values of a choice only.

    `js/inputs.js` hides it with all others, unless something is connected to it. The prompt always
    has it, so that programs see the same inputs whatever was chosen.

    Args:
        choice: id of the combo.
        values: with these the input is shown.
    """
    return {"extra_dict": {_USED_WITH: {choice: list(values)}}}


def without_effect(node: type[io.ComfyNode], given: Mapping[str, Any]) -> set[str]:
    """Return the inputs of a node that have no effect beside its other values; see `used_with`.

    Args:
        node: the class of the node.
        given: its inputs in a prompt; a link is a list, and leaves open what is chosen.
    """
    return {
        each.id
        for each in node.define_schema().inputs
        for choice, values in each.extra_dict.get(_USED_WITH, {}).items()
        if isinstance(given.get(choice), str) and given[choice] not in values
    }
