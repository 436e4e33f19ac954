"""The weights of modules: the real SDXL's 560, their shapes, and refused LoRAs."""

from __future__ import annotations

from functools import cache
from typing import Any

import comfy.supported_models
import comfy.utils
import pytest
import torch
from comfy.model_patcher import ModelPatcher

from sandbox import tiny
from sandbox.tiny_pack.models import UNET_CONFIG
from ziplora_core.comfy_adapter.model.pair_on_model import merge_pair, trained_modules
from ziplora_core.comfy_adapter.model.targets import (
    resolve_text_encoder,
    resolve_unet,
    unet_targets,
)
from ziplora_core.errors import ZipLoRAError
from ziplora_core.files import lora_from_tensors
from ziplora_core.lora.factors import LoRA, LoraFactors
from ziplora_core.lora.layers import LAYER_CHOICES, choose_layers
from ziplora_core.lora.pair import LoRAPair, pair_modules
from ziplora_core.merging import MergeSettings

from .. import helpers

Q = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
CONV = "lora_unet_input_blocks_1_0_in_layers_2"


@cache
def sdxl() -> Any:
    """The full-size SDXL, built once."""
    return tiny.sdxl_meta()


@cache
def attention_lora(style: str) -> dict[str, torch.Tensor]:
    """A rank-1 LoRA of all attention linears of the real SDXL, in one of six spellings."""
    model = sdxl()
    weights = model.state_dict()
    names = comfy.utils.unet_to_diffusers(model.model_config.unet_config)
    diffusers = {sgm: name for name, sgm in names.items()}
    tensors = {}
    for key in tiny.attention_linears(model):
        sgm = key.removeprefix("diffusion_model.")
        stem, dif = sgm.removesuffix(".weight"), diffusers[sgm].removesuffix(".weight")
        names = {
            "kohya": (f"lora_unet_{stem.replace('.', '_')}", "lora_down", "lora_up"),
            "kohya diffusers": (f"lora_unet_{dif.replace('.', '_')}", "lora_down", "lora_up"),
            "comfy": (f"diffusion_model.{stem}", "lora_down", "lora_up"),
            "peft": (f"unet.{dif}", "lora_A", "lora_B"),
            "diffusers": (f"unet.{dif}", "lora.down", "lora.up"),
            "old diffusers": (
                f"unet.{dif.replace('.to_', '.processor.to_').replace('to_out.0', 'to_out')}_lora",
                "down", "up",
            ),
        }  # fmt: skip
        prefix, down, up = names[style]
        out, width = weights[key].shape
        tensors[f"{prefix}.{down}.weight"] = torch.zeros(1, width)
        tensors[f"{prefix}.{up}.weight"] = torch.zeros(out, 1)
    return tensors


@pytest.mark.parametrize(
    "style", ["kohya", "kohya diffusers", "comfy", "peft", "diffusers", "old diffusers"]
)
def test_resolve_unet_matches_560_of_560_and_1571840_coefficients(style: str) -> None:
    lora = lora_from_tensors(attention_lora(style), name=style)
    modules = resolve_unet(lora, sdxl())
    assert len(modules) == 560
    assert set(modules) <= set(unet_targets(sdxl()))
    pair = LoRAPair(lora, lora)
    trained = trained_modules(pair_modules(modules, modules), "attention", pair)
    assert 2 * sum(modules[name].down.shape[1] for name in trained) == 1_571_840


def test_layer_choices_have_their_counts_on_the_real_sdxl() -> None:
    model = sdxl()
    weights = model.state_dict()
    modules = [
        (name, weights[key].ndim - 2)
        for name, key in unet_targets(model).items()
        if weights[key].ndim >= 2
    ]
    counts = {choice: len(choose_layers(choice, modules)) for choice in LAYER_CHOICES}
    assert counts == {
        "attention": 560,
        "attention_without_cross_kv": 420,
        "attention_ff": 700,
        "extended": 734,
        "all_linear": 743,
        "all": 794,
    }


def test_resolve_unet_gives_factors_the_weights_own_form(model: ModelPatcher) -> None:
    weights = model.model.state_dict()
    out, width, *kernel = weights["diffusion_model.input_blocks.1.0.in_layers.2.weight"].shape
    flat_conv = LoraFactors(helpers.noise(2, width * 9), helpers.noise(out, 2))
    q_out, q_in = weights[unet_targets(model.model)[Q]].shape
    round_linear = LoraFactors(helpers.noise(2, q_in, 1, 1), helpers.noise(q_out, 2, 1, 1))
    got = resolve_unet(LoRA("a", {CONV: flat_conv, Q: round_linear}), model.model)
    assert got[CONV].down.shape == (2, width, *kernel) and got[CONV].up.shape == (out, 2, 1, 1)
    assert got[Q].down.shape == (2, q_in) and got[Q].up.shape == (q_out, 2)


@pytest.mark.parametrize(
    ("down", "up"),
    [((2, 63), (64, 2)), ((2, 64), (63, 2)), ((2, 64), (2, 64)), ((32, 2, 2), (64, 2))],
)
def test_resolve_unet_wrong_shapes_are_refused_by_module(
    down: tuple[int, ...], up: tuple[int, ...], model: ModelPatcher
) -> None:
    weight = model.model.state_dict()[unet_targets(model.model)[Q]]
    assert tuple(weight.shape) == (64, 64)
    lora = LoRA("a.safetensors", {Q: LoraFactors(torch.ones(down), torch.ones(up))})
    with pytest.raises(ZipLoRAError, match=rf"a.safetensors, module {Q}: found down .*\(64, 64\)"):
        resolve_unet(lora, model.model)


def test_resolve_unet_sd15_lora_on_sdxl_is_refused_whole_with_the_likely_reason(
    model: ModelPatcher,
) -> None:
    tensors = {}
    for block, width in ((0, 320), (1, 640), (2, 1280)):
        for attn, context in (("attn1", width), ("attn2", 768)):
            stem = f"lora_unet_down_blocks_{block}_attentions_0_transformer_blocks_0_{attn}_to_k"
            tensors[f"{stem}.lora_down.weight"] = torch.ones(4, context)
            tensors[f"{stem}.lora_up.weight"] = torch.ones(width, 4)
    lora = lora_from_tensors(tensors, name="old.safetensors")
    with pytest.raises(
        ZipLoRAError, match=r"^old.safetensors: found a LoRA for .*1\.[x5].* \(2 of 6 modules"
    ):
        resolve_unet(lora, model.model)


def test_resolve_unet_flux_lora_is_refused_with_the_likely_reason(model: ModelPatcher) -> None:
    tensors = {}
    for stem in ("double_blocks_0_img_attn_qkv", "single_blocks_0_linear1"):
        tensors[f"lora_unet_{stem}.lora_down.weight"] = torch.ones(4, 3072)
        tensors[f"lora_unet_{stem}.lora_up.weight"] = torch.ones(9216, 4)
    lora = lora_from_tensors(tensors, name="flux.safetensors")
    with pytest.raises(
        ZipLoRAError, match=r"^flux.safetensors: found a LoRA for FLUX.1 \(2 of 2 modules"
    ):
        resolve_unet(lora, model.model)


def test_resolve_unet_two_spellings_of_one_weight_are_refused(model: ModelPatcher) -> None:
    factors = LoraFactors(torch.ones(1, 64), torch.ones(64, 1))
    diffusers = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
    with pytest.raises(ZipLoRAError, match=f"a second spelling of {Q}"):
        resolve_unet(LoRA("a", {Q: factors, diffusers: factors}), model.model)


def test_resolve_text_encoder_of_another_clip_is_refused(clip: object) -> None:
    name = "lora_te1_text_model_encoder_layers_11_self_attn_q_proj"
    lora = LoRA("a", {name: LoraFactors(torch.ones(1, 768), torch.ones(768, 1))})
    with pytest.raises(ZipLoRAError, match=r"1 of 1 modules .* no such weight in this CLIP"):
        resolve_text_encoder(lora, clip)


def test_trained_modules_without_common_ones_says_what_to_do() -> None:
    a, b = (LoRA(n, {}) for n in ("a.safetensors", "b.safetensors"))
    factors = LoraFactors(torch.ones(1, 4), torch.ones(4, 1))
    pairs = pair_modules({Q: factors}, {CONV: factors})
    with pytest.raises(
        ZipLoRAError, match=r"a.safetensors and b.safetensors: found 0 modules.*MergeLoRAs"
    ):
        trained_modules(pairs, "attention", LoRAPair(a, b))


def test_direct_merge_on_a_model_of_another_width_is_refused() -> None:
    config = comfy.supported_models.SD15(
        {**UNET_CONFIG, "context_dim": 768, "adm_in_channels": None, "num_classes": None}
    )
    config.set_inference_dtype(torch.float16, None)
    other = config.get_model({}, device=torch.device("meta"))
    words = r"expected factors of a weight .* of this Stable Diffusion 1.x model"
    with pytest.raises(ZipLoRAError, match=words):
        merge_pair(other, helpers.lora_pair(), "direct", MergeSettings())
