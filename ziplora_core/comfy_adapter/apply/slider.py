"""Sliders on a MODEL: a LoRA beside the layers for a part of the sampling, at any scale."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from comfy.patcher_extension import WrappersMP

from ...errors import problem
from ...lora.factors import LoRA, LoraFactors
from ...lora.magnitude import huge_updates
from ...lora.pair import scaled
from ...sliders.metadata import slider_use
from ...training.branches import Branches, Gates
from ..model.branch_hooks import SamplingHooks, compiled_lines, refuse_several_devices, uncompiled
from ..model.targets import resolve_some_unet, unet_targets


def with_slider(
    model: Any, slider: LoRA, scale: float, start_percent: float = 0.0, end_percent: float = 1.0
) -> tuple[Any, list[str]]:
    """Put a slider on a clone of MODEL: scale · delta beside each layer, within its window.

    The slider acts in both halves of classifier-free guidance, adds to everything else on the
    MODEL, and does not change the weights. At scale 0 the MODEL itself is returned.

    Args:
        model: the ModelPatcher, which is not changed.
        slider: any LoRA; only its UNet part is used.
        scale: the factor on the LoRA's update, of either sign.
        start_percent, end_percent: the window as shares of the sampling, 0 at pure noise, as in
            ComfyUI's own nodes.

    Returns:
        the clone, and report lines about the slider on it.

    Raises:
        ZipLoRAError: no module of the LoRA belongs to this UNet, a window that ends before it
            begins, or a MODEL on several devices.
    """
    factors = _checked(model, slider, start_percent, end_percent)
    lines = _lines(slider, len(factors), scale, start_percent, end_percent)
    if scale == 0:
        return model, lines
    at_scale = scaled(factors, scale)
    lines += [*compiled_lines(model), *huge_updates(at_scale)]
    targets = unet_targets(model.model)
    hooks = SamplingHooks({targets[name]: Branches([f]) for name, f in at_scale.items()})
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
    """Check the inputs, and resolve the slider's UNet part on MODEL."""
    if start_percent >= end_percent:
        raise problem(
            "start_percent and end_percent",
            found=f"{start_percent:g} and {end_percent:g}",
            expected="a beginning before the end",
            advice="0 is the start of the sampling and 1 its end; 0.25 to 1 is usual.",
        )
    refuse_several_devices(model)
    return resolve_some_unet(slider, model.model)


def _within(hooks: SamplingHooks, start_percent: float, end_percent: float) -> Callable[..., Any]:
    """Make a wrapper that opens the branches for samples whose σ is in the window.

    σ is compared on the device: reading it would synchronise at every step. The end of the window
    is excluded, so that the windows of two consecutive sliders do not overlap. The σ of a percent
    comes from the model that runs, because a ModelSampling node after the slider changes it.
    """

    bounds: WeakKeyDictionary[Any, tuple[float, float]] = WeakKeyDictionary()

    def follow(executor: Any, x: Any, t: Any, *args: Any, **kwargs: Any) -> Any:
        sampling = executor.class_obj.model_sampling
        if sampling not in bounds:  # computing it synchronises
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
    """Describe the slider: its modules and window, its trained range, and unused modules."""
    where = f"from {start_percent:.0%} to {end_percent:.0%} of the sampling" if scale else "off"
    lines = [f"{slider.name} at {scale:g}: {modules} modules, {where}"]
    meant = slider_use(slider.metadata)
    if meant is not None:
        lines.append(
            f"trained for {meant.low:g} … {meant.high:g}, from {meant.start_percent:.0%} of the "
            "sampling on"
        )
        if not meant.low <= scale <= meant.high:
            lines.append(f"WARNING: scale {scale:g} is outside of the range it was trained for")
    if text := list(slider.text_encoder()):
        named = text[0] if len(text) == 1 else f"{text[0]}, …"
        lines.append(
            f"its {len(text)} text-encoder modules ({named}) are not used: a slider does not "
            "change how prompts are encoded"
        )
    return lines
