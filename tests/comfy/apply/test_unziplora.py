"""Each LoRA reads its own prompt while ComfyUI's own sampler draws a picture of both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import comfy.conds
import comfy.controlnet
import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.sd
import comfy.utils
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy_extras.nodes_custom_sampler import Guider_DualCFG
from torch import Tensor

import nodes
from sandbox import tiny
from ziplora_core.comfy_adapter.apply.slider import with_slider
from ziplora_core.comfy_adapter.apply.unziplora import with_unziplora
from ziplora_core.comfy_adapter.model.memory_advice import unload_all_models
from ziplora_core.comfy_adapter.model.targets import unet_targets
from ziplora_core.errors import ZipLoRAError
from ziplora_core.files import lora_from_tensors
from ziplora_core.files.writer import kohya_tensors
from ziplora_core.lora.factors import LoRA
from ziplora_core.lora.layers import reads_prompt
from ziplora_core.lora.merged import MergedLoRA
from ziplora_core.lora.pair import pair_modules

from .. import helpers
from ..helpers import Conditioning, StateDict
from ..train.unziplora_task import TEXTS

JOINT, CONTENT, STYLE = TEXTS
WORDS = "many words of a long prompt about a cat"
LONG, LONGER = (" ".join([WORDS] * n) for n in (12, 20))  # two and three pieces of 77 tokens
CFG, SIGMA = 4.0, 3.0
CLOSE = 2e-4


@cache
def halves() -> tuple[LoRA, ...]:
    """Return a content and a style LoRA; each lacks a layer that the other one has."""
    content, style = (lora_from_tensors(tensors) for tensors in helpers.lora_tensors())
    names = sorted(content.modules)
    missing = next(name for name in names if reads_prompt(name)), names[0]
    return tuple(
        replace(lora, modules={n: f for n, f in lora.modules.items() if n != name})
        for lora, name in zip((content, style), missing, strict=True)
    )


def merge() -> MergedLoRA:
    content, style = halves()
    return MergedLoRA(pair_modules(content.modules, style.modules), prompt_separated=True)


def sampled(
    model: ModelPatcher, positive: Any, negative: Any, samples: int = 1, cfg: float = CFG
) -> Tensor:
    """Take one step from σ to 0 with ComfyUI's sampler; return the guided denoised latent."""
    x = helpers.noise(samples, 4, 8, 8)
    with torch.inference_mode():
        latent = comfy.sample.sample_custom(
            model, x, cfg, comfy.samplers.sampler_object("euler"), torch.tensor([SIGMA, 0.0]),
            positive, negative, torch.zeros_like(x), disable_pbar=True,
        )  # fmt: skip
    return latent * model.model.latent_format.scale_factor


@contextmanager
def by_hand(
    model: ModelPatcher, read: Mapping[int, Tensor], strengths: tuple[float, float]
) -> Iterator[None]:
    """Add Σ_k w_k ΔW_k x_k to the keys and values, densely, for those x_k that `read` has."""
    targets, handles = unet_targets(model.model), []
    for k, lora in enumerate(halves()):
        for name in filter(reads_prompt, lora.modules):
            update = strengths[k] * lora.modules[name].delta()
            layer = comfy.utils.get_attr(model.model, targets[name].removesuffix(".weight"))

            def add(_m: Any, _x: Any, out: Tensor, k: int = k, update: Tensor = update) -> Any:
                return out + read[k] @ update.T

            if k in read:
                handles.append(layer.register_forward_hook(add))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def reference(
    base: ModelPatcher,
    texts: tuple[Conditioning, Conditioning, Conditioning, Conditioning],
    samples: int = 1,
    strengths: tuple[float, float] = (1.0, 1.0),
    cfg: float = CFG,
    loras: tuple[tuple[StateDict, float], ...] = (),
) -> Tensor:
    """Compute the same with the stock loader for everything but keys and values.

    ComfyUI's own batching pads the three prompts to one length.

    Args:
        texts: joint, content, style and negative prompts.
        loras: other LoRAs on the model.
    """
    joint, content, style, negative = texts
    other = tuple(
        (kohya_tensors({n: f for n, f in lora.modules.items() if not reads_prompt(n)}), strength)
        for lora, strength in zip(halves(), strengths, strict=True)
    )
    model = helpers.stock(base, *other, *loras)
    x = SIGMA * helpers.noise(samples, 4, 8, 8)
    comfy.model_management.load_models_gpu([model], force_full_load=True)
    first, *others = (comfy.conds.CONDCrossAttn(c[0][0]) for c in (joint, content, style))
    padded, *read = first.concat(others).split(1)
    joint, own = [[padded, joint[0][1]]], dict(enumerate(read))
    with torch.inference_mode():
        with by_hand(model, own, strengths):
            positive = x - SIGMA * tiny.predict(model, x, SIGMA, joint)
        nothing = x - SIGMA * tiny.predict(model, x, SIGMA, negative)
    return nothing + cfg * (positive - nothing)


def encoded(clip: comfy.sd.CLIP, *texts: str) -> Any:
    return tuple(helpers.encode(clip, text) for text in texts)


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize(
    ("strengths", "texts"),
    [
        ((1.0, 1.0), (JOINT, CONTENT, STYLE, "blurry")),
        ((0.7, -0.4), (JOINT, CONTENT, STYLE, "")),
        ((0.0, 1.0), (JOINT, CONTENT, STYLE, "")),
        ((1.0, 1.0), (LONG, CONTENT, STYLE, LONG)),
        ((1.0, 1.0), (LONG, CONTENT, LONG, "")),
        ((1.0, 1.0), (JOINT, CONTENT, STYLE, LONG)),
        ((1.0, 1.0), (LONGER, CONTENT, LONG, "")),
        ((1.0, 1.0), (LONGER, LONG, LONG, "")),
        ((0.7, -0.4), (LONGER, LONG, LONG, LONG)),
        ((1.0, 1.0), (JOINT, LONG, CONTENT, "")),
        ((1.0, 1.0), (LONG, CONTENT, LONGER, LONGER)),
    ],
    ids=[
        "plain",
        "strengths",
        "style only",
        "long joint",
        "long style",
        "long negative",
        "3/1/2 pieces",
        "3/2/2",
        "3/2/2 beside 2",
        "1/2/1",
        "2/1/3 beside 3",
    ],
)
def test_sampled_with_own_prompts_equals_keys_and_values_made_by_hand(
    samples: int,
    strengths: tuple[float, float],
    texts: tuple[str, ...],
    model: ModelPatcher,
    clip: comfy.sd.CLIP,
) -> None:
    joint, content, style, negative = given = encoded(clip, *texts)
    before = {key: weight.clone() for key, weight in model.model.state_dict().items()}
    ours, _ = with_unziplora(model, merge(), (content, style), strengths)
    got = sampled(ours, joint, negative, samples)
    unload_all_models()
    helpers.assert_untouched(model, before)
    assert helpers.relative(got, reference(model, given, samples, strengths)) < CLOSE


def test_without_guidance_the_whole_batch_reads_its_prompts(
    model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    given = encoded(clip, JOINT, CONTENT, STYLE, "")
    ours, _ = with_unziplora(model, merge(), given[1:3])
    got = sampled(ours, given[0], given[3], 2, cfg=1.0)
    assert helpers.relative(got, reference(model, given, 2, cfg=1.0)) < CLOSE


def test_unconditional_keys_and_values_are_the_base_models(
    model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    """At CFG 0 only the unconditional half has an effect, and the prompts have none."""
    joint, content, style, negative = given = encoded(clip, JOINT, CONTENT, STYLE, "blurry")
    drawn = []
    for own in ((content, style), (negative, joint)):
        ours, _ = with_unziplora(model, merge(), own)
        drawn.append(sampled(ours, joint, negative, cfg=0.0))
    assert torch.equal(*drawn)
    assert helpers.relative(drawn[0], reference(model, given, cfg=0.0)) < CLOSE
    names = [n for lora in halves() for n in lora.modules if reads_prompt(n)]
    assert names and helpers.relative(drawn[0], sampled(model, joint, negative, cfg=0.0)) > 0.01


def test_equal_prompts_equal_both_loras_of_the_stock_loader(
    model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    """Without guidance: the unconditional half of stock LoRAs reads the negative prompt."""
    joint, *_ = encoded(clip, JOINT)
    ours, _ = with_unziplora(model, merge(), (joint, joint))
    both = helpers.stock(model, *((kohya_tensors(dict(lora.modules)), 1.0) for lora in halves()))
    got, want = (sampled(m, joint, joint, cfg=1.0) for m in (ours, both))
    assert helpers.relative(got, want) < CLOSE


def test_goes_together_with_a_controlnet(model: ModelPatcher, clip: comfy.sd.CLIP) -> None:
    (joint,) = encoded(clip, JOINT)
    control = comfy.controlnet.load_controlnet_state_dict(tiny.tiny_controlnet())
    controlled, _ = nodes.ControlNetApplyAdvanced().apply_controlnet(
        joint, joint, control, helpers.noise(1, 64, 64, 3).sigmoid(), 1.0, 0.0, 1.0
    )
    ours, _ = with_unziplora(model, merge(), (joint, joint))
    both = helpers.stock(model, *((kohya_tensors(dict(lora.modules)), 1.0) for lora in halves()))
    got, want = (sampled(m, controlled, joint, 2, cfg=1.0) for m in (ours, both))
    assert helpers.relative(got, want) < CLOSE
    assert helpers.relative(got, sampled(ours, joint, joint, 2, cfg=1.0)) > 0.01


def test_negative_prompt_that_is_shorter_than_the_own_ones_may_run_apart(
    model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    """ComfyUI does not batch a prompt with a ControlNet and one without: the negative prompt's 77
    tokens run alone, while the own prompts have 154."""
    joint, negative = encoded(clip, LONG, "blurry")
    control = comfy.controlnet.load_controlnet_state_dict(tiny.tiny_controlnet())
    controlled, _ = nodes.ControlNetApplyAdvanced().apply_controlnet(
        joint, negative, control, helpers.noise(1, 64, 64, 3).sigmoid(), 1.0, 0.0, 1.0
    )
    ours, _ = with_unziplora(model, merge(), (joint, joint))
    got, positive, nothing = (
        sampled(ours, controlled, negative, 2, cfg=cfg) for cfg in (CFG, 1.0, 0.0)
    )
    assert helpers.relative(got, nothing + CFG * (positive - nothing)) < CLOSE
    want = reference(model, (joint, joint, joint, negative), 2, cfg=0.0)
    assert helpers.relative(nothing, want) < CLOSE


def test_several_positive_prompts_all_read_the_same_own_ones(
    model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    """Two positive prompts are averaged over the picture; each is one part of the batch."""
    joint, second, content, style, negative = encoded(clip, JOINT, LONG, CONTENT, STYLE, "")
    (combined,) = nodes.ConditioningCombine().combine(joint, second)
    ours, _ = with_unziplora(model, merge(), (content, style))
    got = sampled(ours, combined, negative, 2)
    first, other = (reference(model, (p, content, style, negative), 2) for p in (joint, second))
    assert helpers.relative(got, (first + other) / 2) < CLOSE


def test_stacks_with_a_slider_and_stock_loras_in_any_order(
    model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    joint, content, style, negative = given = encoded(clip, JOINT, CONTENT, STYLE, "")
    tensors = tiny.make_lora(model, clip, seed=7)
    lora = lora_from_tensors(tensors)
    stock = helpers.stock(model, (tensors, 0.3))
    slid, _ = with_slider(stock, lora, 0.5)
    first, _ = with_unziplora(slid, merge(), (content, style))
    applied, _ = with_unziplora(stock, merge(), (content, style))
    second, _ = with_slider(applied, lora, 0.5)
    want = reference(model, given, loras=((tensors, 0.3), (tensors, 0.5)))
    for ours in (first, second):
        assert helpers.relative(sampled(ours, joint, negative), want) < CLOSE


def test_two_applied_add_up(model: ModelPatcher, clip: comfy.sd.CLIP) -> None:
    given = encoded(clip, JOINT, CONTENT, STYLE, "")
    half, _ = with_unziplora(model, merge(), given[1:3], (0.25, 0.5))
    both, _ = with_unziplora(half, merge(), given[1:3], (0.75, 0.5))
    got = sampled(both, given[0], given[3])
    assert helpers.relative(got, reference(model, given)) < CLOSE


def test_strengths_of_zero_return_the_model_as_it_came(
    model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    prompts = encoded(clip, CONTENT, STYLE)
    assert with_unziplora(model, merge(), prompts, (0.0, 0.0))[0] is model


def test_guidance_of_three_prompts_is_refused(model: ModelPatcher, clip: comfy.sd.CLIP) -> None:
    joint, content, style, negative = encoded(clip, JOINT, CONTENT, STYLE, "")
    ours, _ = with_unziplora(model, merge(), (content, style))
    guider = Guider_DualCFG(ours)
    guider.set_conds(joint, content, negative)
    guider.set_cfg(CFG, CFG)
    x = helpers.noise(1, 4, 8, 8)
    euler = comfy.samplers.sampler_object("euler")
    with pytest.raises(ZipLoRAError, match="guider: found a guidance with more than"):
        guider.sample(x, torch.zeros_like(x), euler, torch.tensor([SIGMA, 0.0]), disable_pbar=True)


def test_other_merges_and_prompts_are_refused(model: ModelPatcher, clip: comfy.sd.CLIP) -> None:
    content, style = encoded(clip, CONTENT, STYLE)
    plain = MergedLoRA(merge().pairs)
    with pytest.raises(ZipLoRAError, match="merged: found a merge whose content and style read"):
        with_unziplora(model, plain, (content, style))
    with pytest.raises(ZipLoRAError, match="style_conditioning: found 2 entries"):
        with_unziplora(model, merge(), (content, [*style, *style]))
    name, pair = next(iter(merge().pairs.items()))
    other = MergedLoRA({f"{name}_x": pair}, prompt_separated=True)
    with pytest.raises(ZipLoRAError, match="content of the merge, 1 of 1 modules"):
        with_unziplora(model, other, (content, style))
