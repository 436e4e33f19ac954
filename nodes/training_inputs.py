"""Inputs that several training nodes have, and how a list of pictures comes in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from comfy_api.latest import io

from ..ziplora_core.errors import problem
from ..ziplora_core.layers import SLIDER_LAYERS
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


def slider_lora_inputs(learning_rate: float, why: str) -> list[Any]:
    """What both slider trainers ask of the LoRA and its training, in one order."""
    return [
        io.Combo.Input(
            "layers",
            options=list(SLIDER_LAYERS),
            default="noxattn",
            tooltip="What is trained. noxattn: all but the cross-attention (346 modules on SDXL), "
            "the paper's choice, for what one sees. xattn: cross-attention, nearer to the words. "
            "full: both. selfattn and xattn_strict (without its output) are smaller. The others "
            "are this pack's own.",
        ),
        io.Int.Input(
            "rank", default=4, min=1, max=4096, tooltip="4 is the paper's: more also learns more "
            "of what you did not ask for.",
        ),
        io.Float.Input(
            "alpha",
            default=1.0,
            min=0.01,
            max=4096.0,
            step=0.01,
            tooltip="The slider counts alpha / rank times at scale 1.",
        ),
        io.Int.Input("steps", default=1000, min=1, max=100000, tooltip="500 to 1000 are usual."),
        learning_rate_input(learning_rate, why),
        io.Int.Input(
            "resolution",
            default=512,
            min=64,
            max=4096,
            step=8,
            tooltip="Side of the pictures that are trained on, in pixels. 512 is enough, also for "
            "SDXL.",
        ),
    ]  # fmt: skip


def slider_last_inputs() -> list[Any]:
    """Optional ones of both slider trainers."""
    return [
        io.LoraModel.Input(
            "start_lora",
            optional=True,
            tooltip="A slider, or any LoRA of the same layers, to go on from.",
        ),
        io.Float.Input(
            "range",
            default=2.0,
            min=0.05,
            max=10.0,
            step=0.05,
            optional=True,
            advanced=True,
            tooltip="How far the slider is meant to be moved: the effect is shown there, and the "
            "file says so.",
        ),
        io.Float.Input(
            "start_percent",
            default=0.25,
            min=0.0,
            max=0.99,
            step=0.01,
            optional=True,
            advanced=True,
            tooltip="When the slider comes in while the effect is drawn, as in Concept Slider.",
        ),
    ]


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
