"""Sliders and merges beside the stock nodes that change a MODEL, in either order."""

from __future__ import annotations

from typing import Any

import comfy.hooks
import comfy.samplers
import comfy.sd
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy_extras.nodes_custom_sampler import Guider_DualModel
from comfy_extras.nodes_hooks import ConditioningSetProperties

from sandbox import tiny
from sandbox.neighbours import NEIGHBOURS, drawn
from ziplora_core.comfy_adapter.apply.guidance import with_negative_strength
from ziplora_core.comfy_adapter.apply.slider import with_slider
from ziplora_core.files import lora_from_tensors
from ziplora_core.lora.factors import LoRA

from .. import helpers

CLOSE = 1e-4
SCALE = 0.8
DIFFICULT = ("HyperTile", "UNetCrossAttentionMultiply", "SelfAttentionGuidance", "EasyCache")
"""Nodes that change a layer's batch or its weight, or ask for predictions of their own; the others
are measured by `make reliability`."""


def lora() -> LoRA:
    return lora_from_tensors(helpers.lora_tensors()[0], name="smile.safetensors")


def on(model: ModelPatcher) -> ModelPatcher:
    return with_slider(model, lora(), SCALE)[0]


def stock(model: ModelPatcher) -> ModelPatcher:
    return helpers.stock(model, (helpers.lora_tensors()[0], SCALE))


@pytest.mark.parametrize("name", DIFFICULT)
def test_slider_counts_as_a_lora_before_and_after_a_node(
    name: str, model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    node, prompts = NEIGHBOURS[name], helpers.prompts(clip)
    steps = 6 if name == "EasyCache" else 1
    got, want = (drawn(node(put(model)), *prompts, 16, steps) for put in (on, stock))
    assert helpers.relative(got, want) < CLOSE
    assert helpers.relative(want, drawn(stock(model), *prompts, 16, steps)) > 1e-3
    got, want = (drawn(put(node(model)), *prompts, 16, steps) for put in (on, stock))
    assert helpers.relative(got, want) < CLOSE


def test_slider_counts_as_a_lora_in_a_chain_of_many_nodes(
    model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    before = ("Load LoRA", "FreeU_V2", "PerturbedAttentionGuidance")
    after = ("HyperTile", "RescaleCFG", "UNetSelfAttentionMultiply", "FreeU", "Load LoRA")

    def chain(put: Any) -> ModelPatcher:
        chained = model
        for name in before:
            chained = NEIGHBOURS[name](chained)
        chained = put(chained)
        for name in after:
            chained = NEIGHBOURS[name](chained)
        return put(chained)

    got, want = (drawn(chain(put), *helpers.prompts(clip)) for put in (on, stock))
    assert helpers.relative(got, want) < CLOSE


def hooked(conditioning: Any, strength: float, *keyframes: comfy.hooks.HookKeyframe) -> Any:
    """Put the LoRA on a prompt by ComfyUI's hooks, which patch weights between the steps."""
    hooks = comfy.hooks.create_hook_lora(helpers.lora_tensors()[0], strength, 0.0)
    if keyframes:
        group = comfy.hooks.HookKeyframeGroup()
        for keyframe in keyframes:
            group.add(keyframe)
        hooks.set_keyframes_on_hooks(group)
    return ConditioningSetProperties().set_properties(conditioning, 1.0, "default", hooks=hooks)[0]


def test_window_is_that_of_comfyuis_own_lora_schedule(
    model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    prompts = helpers.prompts(clip)
    schedule = [comfy.hooks.HookKeyframe(*each) for each in ((0.0, 0.0), (1.0, 0.3), (0.0, 0.7))]
    scheduled = [hooked(prompt, SCALE, *schedule) for prompt in prompts]
    want = drawn(tiny.tiny_sdxl(), *scheduled, side=8, steps=6)
    got = drawn(with_slider(model, lora(), SCALE, 0.3, 0.7)[0], *prompts, side=8, steps=6)
    assert helpers.relative(got, want) < CLOSE
    assert helpers.relative(want, drawn(on(model), *prompts, side=8, steps=6)) > 0.01


@pytest.mark.parametrize("name", ["SelfAttentionGuidance", "PerturbedAttentionGuidance"])
def test_merge_stays_off_the_negative_prompt_whoever_asks_for_its_prediction(
    name: str, model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    positive, negative = helpers.prompts(clip)
    ours = with_negative_strength(model, lora().modules, "merge", 0.0)[0]
    got = drawn(NEIGHBOURS[name](ours), positive, negative, 16, 1)
    plain = NEIGHBOURS[name](tiny.tiny_sdxl())
    assert helpers.relative(got, drawn(plain, hooked(positive, 1.0), negative, 16, 1)) < CLOSE


def test_guider_that_predicts_the_negative_prompt_alone_leaves_the_merge_off_it(
    model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    positive, negative = helpers.prompts(clip)
    ours = with_negative_strength(model, lora().modules, "merge", 0.0)[0]
    apart, together = Guider_DualModel(ours, ours), comfy.samplers.CFGGuider(ours)
    x, euler = helpers.noise(1, 4, 8, 8), comfy.samplers.sampler_object("euler")
    results = []
    for guider in (apart, together):
        guider.set_conds(positive, negative)
        guider.set_cfg(5.0)
        with torch.inference_mode():
            nothing, sigmas = torch.zeros_like(x), torch.tensor([3.0, 0.0])
            results.append(guider.sample(x, nothing, euler, sigmas, disable_pbar=True))
    assert helpers.relative(*results) < CLOSE
