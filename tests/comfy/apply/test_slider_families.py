"""Sliders and merges on models of other families, beside their layers, as ComfyUI's own LoRA hooks
and loaders have them."""

from __future__ import annotations

from typing import Any

import comfy.hooks
import comfy.sample
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from sandbox.families import conditioning, latent_of, tiny_family
from ziplora_core.comfy_adapter.apply.guidance import with_negative_strength
from ziplora_core.comfy_adapter.apply.slider import with_slider
from ziplora_core.files import lora_from_tensors

from ..family_models import StateDict, every_family, far, make_lora, stock

OFF_ON_OFF = ((0.0, 0.0), (1.0, 0.3), (0.0, 0.7))
SCALE = 0.7


@torch.inference_mode()
def drawn(model: ModelPatcher, family: str, hooks: Any = None, cfg: float = 1.0) -> Tensor:
    """Draw as KSampler does, in six steps."""
    prompts = [conditioning(family, seed) for seed in (1, 2)]
    if hooks is not None:
        prompts[0] = [[context, {**extras, "hooks": hooks}] for context, extras in prompts[0]]
    noise = latent_of(model, seed=3)
    return comfy.sample.sample(
        model, noise, 6, cfg, "euler", "normal", *prompts, torch.zeros_like(noise),
        disable_pbar=True, seed=0,
    )  # fmt: skip


def in_the_network(tensors: StateDict) -> StateDict:
    """Leave out Anima's adapter, which ComfyUI runs before the sampling, where no slider is on."""
    return {key: tensor for key, tensor in tensors.items() if "llm_adapter" not in key}


@every_family
def test_slider_is_the_stock_loaders_lora_and_its_window_comfyuis_lora_schedule(
    family: str,
) -> None:
    model = tiny_family(family)
    tensors = in_the_network(make_lora(model, 1, 4))
    slider = lora_from_tensors(tensors, name="slider")
    base = drawn(model, family)
    assert torch.equal(drawn(with_slider(model, slider, 0.0)[0], family), base)
    scaled = {
        k: v * SCALE if k.endswith(("_B.weight", "_up.weight")) else v for k, v in tensors.items()
    }
    always = drawn(stock(tiny_family(family), scaled), family)
    assert (
        far(drawn(with_slider(model, slider, SCALE)[0], family), always) < 1e-3 < far(always, base)
    )

    hooks = comfy.hooks.create_hook_lora(tensors, SCALE, 0.0)
    keyframes = comfy.hooks.HookKeyframeGroup()
    for strength, start in OFF_ON_OFF:
        keyframes.add(comfy.hooks.HookKeyframe(strength, start))
    hooks.set_keyframes_on_hooks(keyframes)
    want = drawn(tiny_family(family), family, hooks)
    got = drawn(with_slider(model, slider, SCALE, 0.3, 0.7)[0], family)
    assert far(got, want) < 1e-3 < far(want, always)


@every_family
def test_merge_can_stay_off_the_negative_prompt(family: str) -> None:
    model = tiny_family(family)
    tensors = make_lora(model, 1, 4)
    lora = lora_from_tensors(tensors, name="merge")
    ours = with_negative_strength(model, lora.modules, "merge", 0.0)[0]
    want = drawn(tiny_family(family), family, comfy.hooks.create_hook_lora(tensors, 1.0, 0.0), 4.0)
    assert far(drawn(ours, family, cfg=4.0), want) < 1e-3
