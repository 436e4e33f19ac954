"""A slider on a MODEL: the weights are unchanged, and invalid inputs are refused at once."""

from __future__ import annotations

import gc

import comfy.model_management
import comfy.sample
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy_extras.nodes_model_advanced import ModelSamplingContinuousEDM
from torch import Tensor

from sandbox import tiny
from ziplora_core.comfy_adapter.apply.slider import with_slider
from ziplora_core.comfy_adapter.apply.sweep import Swept
from ziplora_core.comfy_adapter.model.memory_advice import unload_all_models
from ziplora_core.errors import ZipLoRAError
from ziplora_core.files import lora_from_tensors
from ziplora_core.lora.factors import LoRA

from .. import helpers


def style() -> LoRA:
    return lora_from_tensors(helpers.lora_tensors()[1], name="style.safetensors")


@torch.inference_mode()
def drawn(
    model: ModelPatcher, positive: helpers.Conditioning, negative: helpers.Conditioning
) -> Tensor:
    """Draw with a MODEL as KSampler does."""
    noise, latent = helpers.noise(1, 4, 8, 8), torch.zeros(1, 4, 8, 8)
    return comfy.sample.sample(
        model, noise, 4, 5.0, "euler", "normal", positive, negative, latent, disable_pbar=True,
        seed=0,
    )  # fmt: skip


def test_weights_are_bit_identical_while_sliders_are_on_and_after() -> None:
    model, clip = tiny.tiny_sdxl(), tiny.tiny_clip()
    before = {key: weight.clone() for key, weight in model.model.state_dict().items()}
    prompts = helpers.prompts(clip)
    plain = drawn(model, *prompts)
    one, _ = with_slider(model, style(), 1.5)
    two, _ = with_slider(one, style(), -0.5, 0.2, 0.9)
    moved = drawn(two, *prompts)
    loaded = model.model.state_dict()
    assert all(torch.equal(loaded[key], weight) for key, weight in before.items())
    assert not torch.allclose(moved, plain, atol=1e-2)
    unload_all_models()
    helpers.assert_untouched(model, before)
    assert torch.equal(drawn(model, *prompts), plain)


def test_two_halves_are_one_slider() -> None:
    model, prompts = tiny.tiny_sdxl(), helpers.prompts(tiny.tiny_clip())
    whole, _ = with_slider(model, style(), 1.0, 0.25)
    half, _ = with_slider(model, style(), 0.5, 0.25)
    both, _ = with_slider(half, style(), 0.5, 0.25)
    assert helpers.relative(drawn(both, *prompts), drawn(whole, *prompts)) < 1e-3


def test_window_is_that_of_the_model_that_runs() -> None:
    """A ModelSampling node changes σ: of its 20, 5.8, 1.7, 0.5 the last two are after 60 %, but
    only one of them by the model's own schedule."""
    prompts = helpers.prompts(tiny.tiny_clip())

    def sampled_otherwise(model: ModelPatcher) -> ModelPatcher:
        (patched,) = ModelSamplingContinuousEDM().patch(model, "eps", 20.0, 0.5)
        return patched

    model = tiny.tiny_sdxl()
    before, _ = with_slider(sampled_otherwise(model), style(), 1.0, 0.6)
    after, _ = with_slider(model, style(), 1.0, 0.6)
    wanted = drawn(before, *prompts)
    assert torch.equal(drawn(sampled_otherwise(after), *prompts), wanted)
    always, _ = with_slider(sampled_otherwise(model), style(), 1.0)
    assert not torch.allclose(wanted, drawn(always, *prompts), atol=1e-2)


def hooked(model: ModelPatcher) -> int:
    return sum(len(module._forward_hooks) for module in model.model.modules())


def test_clone_takes_off_only_what_it_has_put_on() -> None:
    model = tiny.tiny_sdxl()
    slider, _ = with_slider(model, style(), 1.0)
    comfy.model_management.load_models_gpu([slider])
    put_on = hooked(model)
    clone = slider.clone()  # marked as injected, like its origin
    clone.eject_model()
    assert put_on > 0 and hooked(model) == put_on
    comfy.model_management.load_models_gpu([clone])
    assert hooked(model) == put_on
    unload_all_models()
    assert hooked(model) == 0


def test_dropped_slider_leaves_nothing_on_the_model() -> None:
    model = tiny.tiny_sdxl()
    slider, _ = with_slider(model, style(), 1.0)
    comfy.model_management.load_models_gpu([slider])
    clone = slider.clone()
    assert hooked(model) > 0
    put_on = hooked(model)
    del slider
    gc.collect()
    comfy.model_management.load_models_gpu([clone])
    assert hooked(model) == put_on  # and not twice
    unload_all_models()
    assert hooked(model) == 0


def test_model_on_several_devices_is_refused() -> None:
    model = tiny.tiny_sdxl()
    slider, _ = with_slider(model, style(), 1.0)
    for one in (model, slider):
        one.set_additional_models("multigpu", [model.clone()])
    with pytest.raises(ZipLoRAError, match=r"model: found a MODEL on several devices \(MultiGPU"):
        with_slider(model, style(), 1.0)
    with pytest.raises(ZipLoRAError, match="model: found a MODEL on several devices"):
        slider.inject_model()


def test_slider_at_scale_zero_is_the_very_model() -> None:
    model = tiny.tiny_sdxl()
    same, lines = with_slider(model, style(), 0.0)
    assert same is model and lines == ["style.safetensors at 0: 88 modules, off"]


@pytest.mark.parametrize("window", [(0.8, 0.2), (0.5, 0.5), (1.0, 1.0)])
def test_window_that_ends_before_it_begins_is_refused(window: tuple[float, float]) -> None:
    for scale in (1.0, 0.0):
        with pytest.raises(ZipLoRAError, match="start_percent and end_percent: found"):
            with_slider(tiny.tiny_sdxl(), style(), scale, *window)
        with pytest.raises(ZipLoRAError, match="start_percent and end_percent: found"):
            Swept(style(), [scale], *window).on(tiny.tiny_sdxl(), scale)


def test_slider_of_text_encoders_alone_is_refused() -> None:
    name = "lora_te1_text_model_encoder_layers_0_self_attn_q_proj"
    tensors = {f"{name}.lora_down.weight": torch.ones(2, 32)}
    tensors[f"{name}.lora_up.weight"] = torch.ones(32, 2)
    with pytest.raises(ZipLoRAError, match=r"text\.safetensors: found no UNet modules"):
        with_slider(tiny.tiny_sdxl(), lora_from_tensors(tensors, name="text.safetensors"), 1.0)
