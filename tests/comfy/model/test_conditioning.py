"""CONDITIONING is converted as in ComfyUI's sampler, and refused if it is not one prompt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.sd
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy_extras.nodes_clip_sdxl import CLIPTextEncodeSDXL
from comfy_extras.nodes_hooks import ConditioningSetProperties

import nodes
from ziplora_core.comfy_adapter.model import conditioning as cond
from ziplora_core.errors import ZipLoRAError

from .. import helpers

Conditioning = helpers.Conditioning


def combined(c: Conditioning) -> Conditioning:
    return nodes.ConditioningCombine().combine(c, c)[0]


def without_pooled(c: Conditioning) -> Conditioning:
    return [[context, {}] for context, _ in c]


def masked(c: Conditioning) -> Conditioning:
    return nodes.ConditioningSetMask().append(c, torch.ones(1, 8, 8), "default", 1.0)[0]


def in_area(c: Conditioning) -> Conditioning:
    return nodes.ConditioningSetArea().append(c, 64, 64, 0, 0, 1.0)[0]


def in_time(c: Conditioning) -> Conditioning:
    return nodes.ConditioningSetTimestepRange().set_range(c, 0.0, 0.5)[0]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (combined, "2 entries"),
        (lambda c: [], "0 entries"),
        (without_pooled, "no pooled output"),
        (masked, "mask"),
        (in_area, "area"),
        (in_time, "end_percent, start_percent"),
        (lambda c: [[c[0][0].repeat(2, 1, 1), c[0][1]]], "a batch of 2"),
        (
            lambda c: [[c[0][0][..., :32], c[0][1]]],
            "a prompt of width 32 where this model takes 64",
        ),
        (lambda c: [[c[0][0] * float("nan"), c[0][1]]], "NaN or infinity"),
    ],
)
def test_check_refuses_more_or_less_than_one_prompt(
    change: Callable[[Conditioning], Conditioning],
    found: str,
    model: ModelPatcher,
    clip: comfy.sd.CLIP,
) -> None:
    plain = helpers.encode(clip, "a dog")
    cond.check(plain, "style_conditioning", model.model)
    with pytest.raises(ZipLoRAError, match=f"style_conditioning: found .*{found}.*CLIP Text Enc"):
        cond.check(change(plain), "style_conditioning", model.model)


def test_check_refuses_a_scheduled_lora_hook(model: ModelPatcher, clip: comfy.sd.CLIP) -> None:
    plain = helpers.encode(clip, "a dog")
    hooked = ConditioningSetProperties().set_properties(plain, 1.0, "default", timesteps=(0.2, 1.0))
    with pytest.raises(ZipLoRAError, match="found end_percent, start_percent"):
        cond.check(hooked[0], "content_conditioning", model.model)


def test_prepare_size_is_the_latents_unless_the_prompt_says_otherwise(
    model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    latent = torch.zeros(1, 4, 16, 24)
    sized = CLIPTextEncodeSDXL.execute(clip, 1024, 512, 8, 16, 768, 640, "a dog", "a dog")[0]
    cond.check(sized, "content_conditioning", model.model)
    given = {"width": 1024, "height": 512, "crop_w": 8, "crop_h": 16,
             "target_width": 768, "target_height": 640}  # fmt: skip
    own = {"width": 192, "height": 128}
    for conditioning, sizes in ((sized, given), (helpers.encode(clip, "a dog"), own)):
        pooled = conditioning[0][1]["pooled_output"]
        want = model.model.encode_adm(pooled_output=pooled, device="cpu", **sizes)
        got = cond.prepare(model.model, conditioning, latent).parts["y"].cond
        torch.testing.assert_close(got, want, rtol=0, atol=0)


def test_prepare_leaves_inference_mode_behind(model: ModelPatcher, clip: comfy.sd.CLIP) -> None:
    with torch.inference_mode():
        conditioning: Any = helpers.encode(clip, "a dog")
    assert conditioning[0][0].is_inference()
    parts = cond.prepare(model.model, conditioning, torch.zeros(1, 4, 8, 8)).parts
    assert not any(part.cond.is_inference() for part in parts.values())


def test_zeroed_equals_the_stock_zero_out_node(clip: comfy.sd.CLIP) -> None:
    plain = helpers.encode(clip, "a dog")
    want = nodes.ConditioningZeroOut().zero_out(plain)[0]
    got = cond.zeroed(plain)
    assert torch.equal(got[0][0], want[0][0])
    assert torch.equal(got[0][1]["pooled_output"], want[0][1]["pooled_output"])
    assert torch.count_nonzero(plain[0][0]) > 0
