"""Inputs that several training nodes share, and the unwrapping of list inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from comfy_api.latest import io

from ...ziplora_core.errors import problem
from ...ziplora_core.lora.layers import SLIDER_LAYERS
from ...ziplora_core.training.options import MEMORY

SQUARE_IMAGE = (
    "Side length of a square training image in pixels; other images keep their aspect ratio and "
    "have about the same area. 1024 is SDXL's own size; 768 takes about half the memory for "
    "activations."
)


def seed_input(what: str, makes: str = "file", **others: Any) -> io.Int.Input:
    """A seed that does not change after a run: otherwise every Run would train again."""
    return io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=0xFFFFFFFFFFFFFFFF,
        control_after_generate=io.ControlAfterGenerate.fixed,
        tooltip=f"{what} On the CPU, the same seed gives the same {makes}, bit for bit.",
        **others,
    )


def size_input(side: str, tooltip: str, **others: Any) -> io.Int.Input:
    """Width or height of images, in pixels."""
    return io.Int.Input(side, default=1024, min=64, max=4096, step=8, tooltip=tooltip, **others)


def memory_input(low: str) -> io.Combo.Input:
    """The memory mode; `low` names what that mode does besides recomputing activations."""
    return io.Combo.Input(
        "memory",
        options=list(MEMORY),
        default="auto",
        advanced=True,
        tooltip="fast keeps all activations. low needs less memory and more time: it recomputes "
        f"them block by block and {low}. auto decides by the device's memory.",
    )


def learning_rate_input(
    default: float, tooltip: str, name: str = "learning_rate", **others: Any
) -> io.Float.Input:
    """A learning rate that is not rounded."""
    return io.Float.Input(
        name, default=default, min=0.0, max=10.0, step=1e-7, round=False, tooltip=tooltip, **others
    )


def checkpoint_inputs(vae: bool = True) -> list[Any]:
    """The MODEL that is trained, its CLIP and, where it is required, its VAE."""
    inputs: list[Any] = [
        io.Model.Input(
            "model",
            tooltip="A checkpoint of SDXL or of another family that draws images. LoRAs already on "
            "it count as part of it.",
        ),
        io.Clip.Input("clip", tooltip="The checkpoint's CLIP."),
    ]
    return [*inputs, io.Vae.Input("vae", tooltip="The checkpoint's VAE.")] if vae else inputs


def rank_input(default: int, tooltip: str) -> io.Int.Input:
    """The rank of a new LoRA."""
    return io.Int.Input("rank", default=default, min=1, max=4096, tooltip=tooltip)


def alpha_input(default: float, tooltip: str) -> io.Float.Input:
    """The alpha of a new LoRA, whose scale is alpha / rank."""
    return io.Float.Input(
        "alpha", default=default, min=0.01, max=4096.0, step=0.01, tooltip=tooltip, advanced=True
    )


def steps_input(default: int, tooltip: str, **others: Any) -> io.Int.Input:
    """The number of optimisation steps."""
    return io.Int.Input("steps", default=default, min=1, max=100000, tooltip=tooltip, **others)


def resolution_input(default: int, tooltip: str) -> io.Int.Input:
    """The side length of a square training image, in pixels."""
    return io.Int.Input("resolution", default=default, min=64, max=4096, step=8, tooltip=tooltip)


def prior_weight_input(tooltip: str, **others: Any) -> io.Float.Input:
    """The weight of class images in the loss."""
    return io.Float.Input(
        "prior_weight", default=1.0, min=0.0, max=100.0, step=0.05, tooltip=tooltip, **others
    )


def slider_lora_inputs(learning_rate: float, why: str) -> list[Any]:
    """The LoRA and training inputs of both slider trainers, in the same order."""
    return [
        io.Combo.Input(
            "layers",
            options=list(SLIDER_LAYERS),
            default="noxattn",
            advanced=True,
            tooltip="The layers to train. noxattn: self-attention and convolution blocks (346 "
            "modules on SDXL), the paper's choice; changes what is visible in the image. xattn: "
            "cross-attention, closer to the words of the prompt. full: the layers of both. "
            "selfattn and xattn_strict (without the output layer) are smaller. None of these "
            "trains feed-forward layers. The others are this pack's own.",
        ),
        rank_input(4, "The paper uses 4. A higher rank also "
            "learns more of what you did not ask for."),
        alpha_input(1.0, "At scale 1, the slider is multiplied by alpha / rank."),
        steps_input(1000, "500 to 1000 are usual."),
        learning_rate_input(learning_rate, why),
        resolution_input(
            512,
            "Side length of a square training image in pixels. 512 is enough, also for SDXL.",
        ),
    ]  # fmt: skip


def slider_last_inputs() -> list[Any]:
    """The optional inputs of both slider trainers."""
    return [
        io.LoraModel.Input(
            "start_lora",
            optional=True,
            tooltip="A slider, or any LoRA of the same layers, to continue training from.",
        ),
        io.Float.Input(
            "range",
            default=2.0,
            min=0.05,
            max=10.0,
            step=0.05,
            optional=True,
            advanced=True,
            tooltip="How far the slider is meant to be moved in either direction. The effect is "
            "drawn at this scale, and the file records it.",
        ),
        io.Float.Input(
            "start_percent",
            default=0.25,
            min=0.0,
            max=0.99,
            step=0.01,
            optional=True,
            advanced=True,
            tooltip="When the slider starts to act while the effect is drawn, as in Concept "
            "Slider.",
        ),
    ]


def unwrap_single(inputs: Mapping[str, Sequence[Any] | None]) -> dict[str, Any]:
    """Unwrap the single values of a node that takes lists.

    Raises:
        ZipLoRAError: an input that takes one value has several.
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
