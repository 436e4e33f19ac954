"""Inputs that several training nodes have, and how a list of pictures comes in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from comfy_api.latest import io

from ..ziplora_core.errors import problem
from ..ziplora_core.options import MEMORY


def seed_input(what: str, **others: Any) -> io.Int.Input:
    """A seed that stays as it is: otherwise every Run would train again."""
    return io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=0xFFFFFFFFFFFFFFFF,
        control_after_generate=io.ControlAfterGenerate.fixed,
        tooltip=f"{what} On the CPU the same seed gives the same file, bit for bit.",
        **others,
    )


def size_input(side: str, tooltip: str, **others: Any) -> io.Int.Input:
    """Width or height of pictures, in pixels."""
    return io.Int.Input(side, default=1024, min=64, max=4096, step=8, tooltip=tooltip, **others)


def memory_input(low: str) -> io.Combo.Input:
    """How much memory may be used; `low` says what the frugal way does beside checkpointing."""
    return io.Combo.Input(
        "memory",
        options=list(MEMORY),
        default="auto",
        tooltip=f"fast keeps all activations; low recomputes them block by block and {low}; auto "
        "looks at the device's memory.",
    )


def learning_rate_input(
    default: float, tooltip: str, name: str = "learning_rate", **others: Any
) -> io.Float.Input:
    """A learning rate that keeps its digits."""
    return io.Float.Input(
        name, default=default, min=0.0, max=10.0, step=1e-7, round=False, tooltip=tooltip, **others
    )


def one_of_each(inputs: Mapping[str, Sequence[Any] | None]) -> dict[str, Any]:
    """Take single values out of the lists a list-taking node gets.

    Raises:
        ZipLoRAError: an input that is to have one value has several.
    """
    several = {name: len(v) for name, v in inputs.items() if v is not None and len(v) != 1}
    for name, count in several.items():
        raise problem(
            name,
            found=f"a list of {count}",
            expected="one value",
            advice="Connect a single value; only pictures and captions may be lists.",
        )
    return {name: values[0] for name, values in inputs.items() if values is not None}
