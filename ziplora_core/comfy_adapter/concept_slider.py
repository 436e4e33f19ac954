"""A slider on a MODEL: a LoRA beside the layers for a part of the sampling, at any scale."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from comfy.patcher_extension import WrappersMP

from ..branches import Branches, Gates
from ..errors import problem
from ..lora import LoRA, LoraFactors
from ..pairing import scaled
from ..slider_report import slider_use
from .branch_hooks import SamplingHooks, compiled_lines, refuse_several_devices, uncompiled
from .targets import resolve_some_unet, unet_targets


def with_slider(
    model: Any, slider: LoRA, scale: float, start_percent: float = 0.0, end_percent: float = 1.0
) -> tuple[Any, list[str]]:
    """Put a slider on a clone of MODEL: scale · delta beside each layer, within its window.

    It is on in both halves of classifier-free guidance, adds to whatever else is on the MODEL, and
    leaves no trace in the weights. At scale 0 the MODEL is returned as it came.

    Args:
        model: ModelPatcher; it is not changed.
        slider: any LoRA; only its UNet part is used.
        scale: times its own strength, either sign.
        start_percent, end_percent: of the sampling, 0 at pure noise, as in ComfyUI's own nodes.

    Returns:
        the clone, and lines that say what was put on it.

    Raises:
        ZipLoRAError: nothing for this UNet in the LoRA, a window that ends before it begins, or a
            MODEL on several devices.
    """
    factors = _checked(model, slider, start_percent, end_percent)
    lines = _lines(slider, len(factors), scale, start_percent, end_percent)
    if scale == 0:
        return model, lines
    lines += compiled_lines(model)
    targets = unet_targets(model.model)
    hooks = SamplingHooks(
        {targets[name]: Branches([f]) for name, f in scaled(factors, scale).items()}
    )
    key = f"ziplora_slider_{uuid.uuid4().hex}"
    clone = model.clone()
    hooks.put_on(clone, key)
    clone.add_wrapper_with_key(
        WrappersMP.APPLY_MODEL, key, _within(hooks, start_percent, end_percent)
    )
    return clone, lines


def _checked(
    model: Any, slider: LoRA, start_percent: float, end_percent: float
) -> dict[str, LoraFactors]:
    """Resolve the slider's UNet part on MODEL."""
    if start_percent >= end_percent:
        raise problem(
            "start_percent and end_percent",
            found=f"{start_percent:g} and {end_percent:g}",
            expected="a beginning before the end",
            advice="0 is the first step and 1 the last one; 0.25 to 1 is usual for a slider.",
        )
    refuse_several_devices(model)
    return resolve_some_unet(slider, model.model)


def _within(hooks: SamplingHooks, start_percent: float, end_percent: float) -> Callable[..., Any]:
    """Open the branches around every call of the model, for samples whose σ is in the window.

    The device decides that: to ask it would be to wait for it at every step. The window's end is
    not part of it: two sliders that follow each other do not meet. The σ of a percent is asked of
    the model that runs: a ModelSampling node behind the slider changes it.
    """

    bounds: WeakKeyDictionary[Any, tuple[float, float]] = WeakKeyDictionary()

    def follow(executor: Any, x: Any, t: Any, *args: Any, **kwargs: Any) -> Any:
        sampling = executor.class_obj.model_sampling
        if sampling not in bounds:  # its answer is a wait for the device
            first, last = map(sampling.percent_to_sigma, (start_percent, end_percent))
            bounds[sampling] = first, last
        first, last = bounds[sampling]
        inside = (t > last) & (t <= first)
        outer = hooks.gates
        hooks.gates = Gates(inside.to(executor.class_obj.get_dtype_inference())[:, None])
        try:
            with uncompiled():
                return executor(x, t, *args, **kwargs)
        finally:
            hooks.gates = outer

    return follow


def _lines(
    slider: LoRA, modules: int, scale: float, start_percent: float, end_percent: float
) -> list[str]:
    """Say what is on, how far it was meant to go, and what of it is not used."""
    where = f"from {start_percent:.0%} to {end_percent:.0%} of the steps" if scale else "off"
    lines = [f"{slider.name} at {scale:g}: {modules} modules, {where}"]
    meant = slider_use(slider.metadata)
    if meant is not None:
        lines.append(
            f"trained for {meant.low:g} … {meant.high:g}, from {meant.start_percent:.0%} of the "
            "steps on"
        )
        if not meant.low <= scale <= meant.high:
            lines.append(f"WARNING: {scale:g} is outside of what it was trained for")
    if text := list(slider.text_encoder()):
        named = text[0] if len(text) == 1 else f"{text[0]}, …"
        lines.append(
            f"its {len(text)} text-encoder modules ({named}) are not used: a slider leaves prompts "
            "alone"
        )
    return lines
