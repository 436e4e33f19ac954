"""A slider on a MODEL in this process: the weights stay, and what cannot work is said at once."""

from __future__ import annotations

import comfy.model_management
import comfy.sample
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from sandbox import tiny
from ziplora_core.comfy_adapter.concept_slider import with_slider
from ziplora_core.errors import ZipLoRAError
from ziplora_core.files import lora_from_tensors
from ziplora_core.lora import LoRA

from . import helpers


def style() -> LoRA:
    return lora_from_tensors(helpers.lora_tensors()[1], name="style.safetensors")


@torch.inference_mode()
def drawn(
    model: ModelPatcher, positive: helpers.Conditioning, negative: helpers.Conditioning
) -> Tensor:
    """Draw with it, as KSampler does."""
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
    comfy.model_management.unload_all_models()
    helpers.assert_untouched(model, before)
    assert torch.equal(drawn(model, *prompts), plain)


def test_slider_at_scale_zero_is_the_very_model() -> None:
    model = tiny.tiny_sdxl()
    same, lines = with_slider(model, style(), 0.0)
    assert same is model and lines == ["style.safetensors at 0: 88 modules, off"]


@pytest.mark.parametrize("window", [(0.8, 0.2), (0.5, 0.5), (1.0, 1.0)])
def test_window_that_ends_before_it_begins_is_refused(window: tuple[float, float]) -> None:
    for scale in (1.0, 0.0):
        with pytest.raises(ZipLoRAError, match="start_percent and end_percent: found"):
            with_slider(tiny.tiny_sdxl(), style(), scale, *window)


def test_slider_of_text_encoders_alone_is_refused() -> None:
    name = "lora_te1_text_model_encoder_layers_0_self_attn_q_proj"
    tensors = {f"{name}.lora_down.weight": torch.ones(2, 32)}
    tensors[f"{name}.lora_up.weight"] = torch.ones(32, 2)
    with pytest.raises(ZipLoRAError, match=r"text\.safetensors: found no UNet modules"):
        with_slider(tiny.tiny_sdxl(), lora_from_tensors(tensors, name="text.safetensors"), 1.0)
