"""A LoRA with another strength in the unconditional half, held against ComfyUI's own loader."""

from __future__ import annotations

import comfy.sample
import comfy.samplers
import comfy.sd
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy_extras.nodes_custom_sampler import Guider_DualCFG
from torch import Tensor

from ziplora_core.comfy_adapter.apply.guidance import with_negative_strength
from ziplora_core.comfy_adapter.apply.halves import conditional
from ziplora_core.comfy_adapter.model.memory_advice import unload_all_models
from ziplora_core.errors import ZipLoRAError
from ziplora_core.files import lora_from_tensors
from ziplora_core.lora.factors import LoraFactors

from .. import helpers
from ..helpers import Conditioning

CFG, SIGMA = 4.0, 3.0
CLOSE = 2e-4


def modules() -> dict[str, LoraFactors]:
    return dict(lora_from_tensors(helpers.lora_tensors()[0]).modules)


def step(
    model: ModelPatcher, positive: Conditioning, negative: Conditioning, cfg: float = CFG
) -> Tensor:
    """Take one step from σ to 0 with ComfyUI's sampler; returns the guided prediction."""
    x = helpers.noise(2, 4, 8, 8)
    with torch.inference_mode():
        return comfy.sample.sample_custom(
            model, x, cfg, comfy.samplers.sampler_object("euler"), torch.tensor([SIGMA, 0.0]),
            positive, negative, torch.zeros_like(x), disable_pbar=True,
        )  # fmt: skip


@pytest.fixture
def prompts(clip: comfy.sd.CLIP) -> tuple[Conditioning, Conditioning]:
    return helpers.encode(clip, "a sks dog in watercolor style"), helpers.encode(clip, "blurry")


@pytest.mark.parametrize("negative_strength", [1.0, 0.5, 0.0])
def test_each_half_is_that_of_the_stock_loader_at_its_strength(
    negative_strength: float,
    model: ModelPatcher,
    prompts: tuple[Conditioning, Conditioning],
) -> None:
    before = {key: weight.clone() for key, weight in model.model.state_dict().items()}
    positive, negative = prompts
    tensors = helpers.lora_tensors()[0]
    whole, less = (
        helpers.stock(model, (tensors, strength)) if strength else model
        for strength in (1.0, negative_strength)
    )
    of_positive = step(whole, positive, positive, cfg=1.0)
    of_negative = step(less, negative, negative, cfg=1.0)
    ours, lines = with_negative_strength(model, modules(), "a LoRA", negative_strength)
    got = step(ours, positive, negative)
    want = of_negative + CFG * (of_positive - of_negative)
    assert lines == [] and torch.allclose(got, want, atol=CLOSE * float(want.abs().max()))
    stock = step(whole, positive, negative)
    assert torch.allclose(got, stock, atol=1e-2 * float(stock.abs().max())) == (
        negative_strength == 1
    )
    unload_all_models()
    helpers.assert_untouched(model, before)


def test_without_guidance_there_is_no_negative_half(
    model: ModelPatcher, prompts: tuple[Conditioning, Conditioning]
) -> None:
    ours, _ = with_negative_strength(model, modules(), "a LoRA", 0.0)
    stock = helpers.stock(model, (helpers.lora_tensors()[0], 1.0))
    got, want = (step(m, *prompts, cfg=1.0) for m in (ours, stock))
    assert torch.allclose(got, want, atol=CLOSE * float(want.abs().max()))


def test_halves_are_read_in_comfyuis_order() -> None:
    assert conditional({"cond_or_uncond": [1, 0]}, 4, "x") == [False, False, True, True]
    assert conditional({"cond_or_uncond": [0]}, 2, "x") == [True, True]
    assert conditional({"cond_or_uncond": [0, 0, 1]}, 3, "x") == [True, True, False]
    assert conditional({}, 1, "x") == [True]


def test_prompts_go_by_the_guiders_names_where_they_have_some() -> None:
    names = {"a": "positive", "b": "negative", "of an area": None}
    for uuids, halves, want in (
        (["b"], [0], [False]),
        (["b", "a"], [1, 0], [False, True]),
        (["of an area", "b"], [0, 1], [True, False]),
    ):
        options = {"cond_or_uncond": halves, "uuids": uuids, "ziplora_prompts": names}
        assert conditional(options, len(want), "x") == want
    options = {"cond_or_uncond": [0], "uuids": ["of another node"], "ziplora_prompts": names}
    with pytest.raises(ZipLoRAError, match="guider: found a guidance with more than"):
        conditional(options, 1, "x")


def test_guider_with_three_halves_is_refused(
    model: ModelPatcher, prompts: tuple[Conditioning, Conditioning]
) -> None:
    positive, negative = prompts
    ours, _ = with_negative_strength(model, modules(), "a LoRA", 0.0)
    guider = Guider_DualCFG(ours)
    guider.set_conds(positive, negative, negative)
    guider.set_cfg(3.0, 2.0)
    x = helpers.noise(1, 4, 8, 8)
    with torch.inference_mode(), pytest.raises(ZipLoRAError, match=r"guider: .*negative_strength"):
        guider.sample(
            x, torch.zeros_like(x), comfy.samplers.sampler_object("euler"),
            torch.tensor([SIGMA, 0.0]), disable_pbar=True,
        )  # fmt: skip


def test_two_loras_keep_a_strength_each(
    model: ModelPatcher, prompts: tuple[Conditioning, Conditioning]
) -> None:
    half, _ = with_negative_strength(model, modules(), "a LoRA", 0.5)
    both, _ = with_negative_strength(half, modules(), "a LoRA", 0.0)
    positive, negative = prompts
    tensors = helpers.lora_tensors()[0]
    of_positive = step(helpers.stock(model, (tensors, 2.0)), positive, positive, cfg=1.0)
    of_negative = step(helpers.stock(model, (tensors, 0.5)), negative, negative, cfg=1.0)
    got, want = step(both, *prompts), of_negative + CFG * (of_positive - of_negative)
    assert torch.allclose(got, want, atol=CLOSE * float(want.abs().max()))


def test_error_in_a_step_leaves_the_model_clean(
    model: ModelPatcher, prompts: tuple[Conditioning, Conditioning]
) -> None:
    before = step(model, *prompts)
    ours, _ = with_negative_strength(model, modules(), "a LoRA", 0.0)
    layer = ours.model.diffusion_model.middle_block

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    handle = layer[-1].register_forward_hook(fail)
    try:
        with pytest.raises(KeyboardInterrupt):
            step(ours, *prompts)
    finally:
        handle.remove()
    assert torch.equal(step(model, *prompts), before)


def test_lora_of_another_model_is_refused_by_name(model: ModelPatcher) -> None:
    wrong = {f"lora_unet_nowhere_{n}": f for n, f in enumerate(modules().values())}
    with pytest.raises(ZipLoRAError, match="a LoRA"):
        with_negative_strength(model, wrong, "a LoRA", 0.0)
