"""The base model of a file, told from synthetic keys and shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch

from ziplora_core.errors import ZipLoRAError
from ziplora_core.files import lora_from_tensors
from ziplora_core.files.base_model import describe_base

Shapes = dict[str, tuple[int, ...]]


def unet(blocks: Mapping[str, int], width: Mapping[str, int] | int, cross: int | None) -> Shapes:
    """Shapes of a kohya attention LoRA.

    Args:
        blocks: transformer blocks by attention block, e.g. `{"input_blocks_4_1": 2}`.
        width: features of each block, or of all.
        cross: width of the prompt's embedding; None leaves the cross-attention out.
    """
    shapes: Shapes = {}
    for block, depth in blocks.items():
        features = width if isinstance(width, int) else width[block]
        for n in range(depth):
            stem = f"lora_unet_{block}_transformer_blocks_{n}_attn"
            shapes[f"{stem}1_to_q.lora_down.weight"] = (4, features)
            if cross:
                shapes[f"{stem}2_to_k.lora_down.weight"] = (4, cross)
    return shapes


def sgm(inputs: Sequence[int], outputs: Sequence[int], middle: int = 0) -> dict[str, int]:
    """Name attention blocks of a UNet with SDXL's layout by their depths."""
    blocks = {f"input_blocks_{n}_1": depth for n, depth in zip((4, 5, 7, 8), inputs, strict=True)}
    blocks |= {f"output_blocks_{n}_1": depth for n, depth in enumerate(outputs)}
    return blocks | ({"middle_block_1": middle} if middle else {})


def diffusers(downs: list[int], ups: list[int], middle: int = 0) -> dict[str, int]:
    """Name KOALA's attention blocks as diffusers does."""
    blocks = {f"down_blocks_{n + 1}_attentions_0": depth for n, depth in enumerate(downs)}
    blocks |= {f"up_blocks_{n // 2}_attentions_{n % 2}": depth for n, depth in enumerate(ups)}
    return blocks | ({"mid_block_attentions_0": middle} if middle else {})


FULL = sgm((2, 2, 10, 10), (10, 10, 10, 2, 2, 2), 10)
WIDE = {block: 640 if depth == 2 else 1280 for block, depth in FULL.items()}
SD1 = {"input_blocks_1_1": 1, "input_blocks_4_1": 1, "middle_block_1": 1, "output_blocks_11_1": 1}
SD1_WIDTH = dict(zip(SD1, (320, 640, 1280, 320), strict=True))


def keys(*names: str, shape: tuple[int, ...] = (4, 8)) -> Shapes:
    return {f"{name}.lora_down.weight": shape for name in names}


TEXT_LAYER = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
FLUX_BLOCKS = ("transformer_blocks.0.attn.add_q_proj", "single_transformer_blocks.0.attn.to_q")
HUNYUAN_BLOCKS = ("txt_in.individual_token_refiner.blocks.0.x", "double_blocks.0.x")

UNETS: dict[str, tuple[Shapes, str]] = {
    "SDXL": (unet(FULL, WIDE, 2048), "SDXL"),
    "SDXL without cross-attention": (unet(FULL, WIDE, None), "SDXL"),
    "SDXL one block": (unet({"output_blocks_0_1": 10}, 1280, None), "SDXL"),
    "SDXL text encoder": (keys("lora_te1_text_model_x", "lora_te2_text_model_x"), "SDXL"),
    "refiner": (unet({"input_blocks_4_1": 4}, 768, 1280), "the SDXL refiner"),
    "refiner by width": (unet({"input_blocks_4_1": 4}, 768, None), "the SDXL refiner"),
    "SSD-1B": (unet(sgm((2, 2, 4, 4), (4, 4, 10, 2, 1, 1)), 640, 2048), "SSD-1B"),
    "Vega": (unet(sgm((1, 1, 2, 2), (2, 2, 2, 1, 1, 1)), 640, 2048), "Segmind Vega"),
    "KOALA 700M": (unet(diffusers([2, 5], [5, 5, 2, 2]), 640, 2048), "KOALA 700M"),
    "KOALA 1B": (unet(diffusers([2, 6], [6, 6, 2, 2], 6), 640, 2048), "KOALA 1B"),
    "no middle": (unet(sgm((2, 2, 10, 10), (10, 10, 10, 2, 2, 2)), 640, 2048), "a distilled SDXL"),
    "SD1": (unet(SD1, SD1_WIDTH, 768), "Stable Diffusion 1.x"),
    "SD2": (unet(SD1, SD1_WIDTH, 1024), "Stable Diffusion 2.x"),
    "SD1 or 2": (unet(SD1, SD1_WIDTH, None), "Stable Diffusion 1.x or Stable Diffusion 2.x"),
    "SD1 or 2 by place": (
        keys("unet.up_blocks.3.attentions.0.transformer_blocks.0.ff.net.2"),
        "Stable Diffusion 1.x or Stable Diffusion 2.x",
    ),
    "SD1 text encoder": (keys(TEXT_LAYER, shape=(4, 768)), "Stable Diffusion 1.x"),
    "SD2 text encoder": (keys(TEXT_LAYER, shape=(4, 1024)), "Stable Diffusion 2.x"),
    "AnimateDiff": (
        keys("unet.down_blocks.0.motion_modules.0.temporal_transformer.x"),
        "AnimateDiff's motion modules",
    ),
    "tiny": (unet({"input_blocks_4_1": 1}, 64, 64), ""),
    "unknown": (keys("lora_unet_x"), ""),
}
TRANSFORMERS = {
    "FLUX.1": ["lora_unet_double_blocks_0_img_attn_qkv", "lora_unet_single_blocks_0_linear1"],
    "FLUX.1 ": [f"transformer.{block}" for block in FLUX_BLOCKS],
    "FLUX.2": ["diffusion_model.double_stream_modulation_img.lin"],
    "Chroma": ["distilled_guidance_layer.layers.0", "diffusion_model.double_blocks.0.x"],
    "HunyuanVideo": [f"diffusion_model.{block}" for block in HUNYUAN_BLOCKS],
    "Stable Diffusion 3": ["diffusion_model.joint_blocks.0.x_block.attn.qkv"],
    "Stable Diffusion 3 ": ["transformer.transformer_blocks.0.attn.add_q_proj"],
    "Stable Diffusion 3 or FLUX.1": ["lora_te3_encoder_block_0_x"],
    "Qwen-Image": [FLUX_BLOCKS[0], "transformer_blocks.0.img_mlp.net.2"],
    "Qwen-Image ": ["diffusion_model.transformer_blocks.0.attn.add_q_proj"],
    "Qwen-Image  ": [f"lora_unet_transformer_blocks_{n}_attn_to_q" for n in range(60)],
    "Wan": ["diffusion_model.blocks.0.self_attn.q"],
    "Anima": ["diffusion_model.blocks.0.cross_attn.k_proj"],
    "Krea 2": ["lora_unet_blocks_3_attn_wq"],
    "Krea 2 ": ["transformer.text_fusion.refiner_blocks.0.attn.to_q"],
    "Z-Image or Lumina 2": ["diffusion_model.layers.0.attention.qkv"],
    "Z-Image or Lumina 2 ": ["diffusion_model.noise_refiner.0.x"],
    "PixArt or LTX-Video": ["transformer.transformer_blocks.0.attn1.to_q"],
    "AuraFlow": ["diffusion_model.double_layers.0.attn.w1q"],
    "HiDream": ["diffusion_model.double_stream_blocks.0.block.x"],
    "Stable Cascade": ["lora_prior_unet_down_blocks_0_1_attention"],
}
BASES = UNETS | {name: (keys(*stems), name.strip()) for name, stems in TRANSFORMERS.items()}


@pytest.mark.parametrize(("shapes", "name"), BASES.values(), ids=BASES)
def test_describe_base_names_the_model(shapes: Shapes, name: str) -> None:
    guess = describe_base(shapes)
    assert (guess.name, guess.advice) == (name, "")


@pytest.mark.parametrize("base", ["SSD-1B", "Vega", "KOALA 700M", "KOALA 1B", "no middle"])
def test_describe_base_distilled_sdxl_is_a_warning(base: str) -> None:
    shapes, name = BASES[base]
    assert describe_base(shapes).warning == f"its layers are those of {name}, not of full SDXL"


@pytest.mark.parametrize("base", ["SDXL", "SD1", "SDXL one block"])
def test_describe_base_others_get_no_warning(base: str) -> None:
    assert not describe_base(BASES[base][0]).warning


NOT_LORAS: dict[str, tuple[list[str], str]] = {
    "checkpoint": (["model.diffusion_model.out.2.weight", "first_stage_model.x.weight"], "a check"),
    "UNet of a checkpoint": (["model.diffusion_model.out.2.weight", "x.alpha"], "a whole model"),
    "UNet alone": (["down_blocks.0.resnets.0.conv1.weight", "conv_in.bias"], "a whole model"),
    "SD1 embedding": (["emb_params"], "a textual inversion embedding"),
    "SDXL embedding": (["clip_l", "clip_g"], "a textual inversion embedding"),
    "token": (["<s1>"], "a textual inversion embedding"),
    "Control-LoRA": (["lora_controlnet", "input_blocks.0.0.down"], "a Control-LoRA"),
    "LLLite": (["lllite_unet_x.down.0.weight"], "a Control-LoRA or ControlNet-LLLite"),
    "ControlNet": (["control_model.input_blocks.0.0.weight"], "a Control-LoRA"),
    "IP-Adapter": (["image_proj.proj.weight", "ip_adapter.1.to_k_ip.weight"], "an IP-Adapter"),
    "cloneofsimo": (["<s1>", "unet:0:up", "unet:0:down"], "a LoRA of the cloneofsimo trainer"),
}


@pytest.mark.parametrize(("names", "found"), NOT_LORAS.values(), ids=NOT_LORAS)
def test_lora_from_tensors_what_is_no_lora_is_refused_by_name(names: list[str], found: str) -> None:
    with pytest.raises(ZipLoRAError, match=f"found {found}.*expected a LoRA"):
        lora_from_tensors({name: torch.ones(2, 2) for name in names})


@pytest.mark.parametrize("base", ["SDXL", "SSD-1B"])
def test_lora_from_tensors_keeps_the_base_and_its_warning(base: str) -> None:
    shapes, name = BASES[base]
    downs = {key: torch.zeros(1, 1).expand(shape) for key, shape in shapes.items()}
    ups = {key.replace("lora_down", "lora_up"): torch.zeros(8, 4) for key in shapes}
    lora = lora_from_tensors(downs | ups)
    assert lora.base == name
    assert any("not of full SDXL" in note for note in lora.notes) is (base == "SSD-1B")
