"""Every spelling of a LoRA's keys becomes the same names and the same factors."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from ziplora_core.errors import ZipLoRAError
from ziplora_core.files import lora_from_tensors
from ziplora_core.files.key_formats import name_module, split_key

SGM = "input_blocks.4.1.transformer_blocks.0.attn1.to_q"
DIFFUSERS = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
OUT = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out"

SPELLINGS = {
    "kohya": f"lora_unet_{SGM.replace('.', '_')}.lora_down.weight",
    "kohya diffusers": f"lora_unet_{DIFFUSERS.replace('.', '_')}.lora_down.weight",
    "kohya dot": f"lora_unet.{SGM}.lora_down.weight",
    "kohya A": f"lora_unet_{DIFFUSERS.replace('.', '_')}.lora_A.weight",
    "comfy": f"diffusion_model.{SGM}.lora_down.weight",
    "comfy A": f"diffusion_model.{SGM}.lora_A.weight",
    "model prefix": f"model.diffusion_model.{SGM}.lora_A.weight",
    "bare sgm": f"{SGM}.lora_A.weight",
    "omi": f"unet.{SGM}.lora_down.weight",
    "processor": f"unet.{DIFFUSERS.replace('to_q', 'processor.to_q')}_lora.down.weight",
    "oldest": f"{DIFFUSERS.replace('to_q', 'processor.to_q')}_lora.down.weight",
    "scripts": f"unet.{DIFFUSERS}.lora.down.weight",
    "doubled": f"unet.unet.{DIFFUSERS}.lora.down.weight",
    "diffusers": f"unet.{DIFFUSERS}.lora_A.weight",
    "adapter name": f"unet.{DIFFUSERS}.lora_A.default.weight",
    "linear layer": f"unet.{DIFFUSERS}.lora_linear_layer.down.weight",
    "mochi": f"{DIFFUSERS}.lora_A",
    "save_lora_adapter": f"{DIFFUSERS}.lora_A.weight",
    "peft": f"base_model.model.{DIFFUSERS}.lora_A.weight",
    "peft unet": f"base_model.model.unet.{DIFFUSERS}.lora_A.weight",
    "unet peft": f"unet.base_model.model.{DIFFUSERS}.lora_A.weight",
    "lycoris": f"lycoris_{DIFFUSERS.replace('.', '_')}.lora_down.weight",
    "lycoris sgm": f"lycoris_{SGM.replace('.', '_')}.lora_down.weight",
}

LAYER = "encoder.layers.3.self_attn"
TEXT_SPELLINGS = {
    f"lora_te1_text_model_{LAYER.replace('.', '_')}_q_proj.lora_down.weight": 1,
    f"lora_te_text_model_{LAYER.replace('.', '_')}_q_proj.lora_down.weight": 1,
    f"lora_te2_text_model_{LAYER.replace('.', '_')}_q_proj.lora_down.weight": 2,
    f"text_encoder.text_model.{LAYER}.q_proj.lora_A.weight": 1,
    f"text_encoder_2.text_model.{LAYER}.q_proj.lora_A.weight": 2,
    f"text_encoder.{LAYER}.q_proj.lora_A.weight": 1,  # diffusers with transformers 5
    f"text_encoder.text_model.{LAYER}.q_proj.lora_linear_layer.down.weight": 1,
    f"text_encoder.text_model.{LAYER}.to_q_lora.down.weight": 1,
    f"text_encoders.clip_l.transformer.text_model.{LAYER}.q_proj.lora_down.weight": 1,
    f"text_encoders.clip_g.transformer.text_model.{LAYER}.q_proj.lora_down.weight": 2,
    f"text_encoders.clip_l.text_model.{LAYER}.q_proj.lora_down.weight": 1,
    f"clip_l.text_model.{LAYER}.q_proj.lora_down.weight": 1,
    f"clip_g.text_model.{LAYER}.q_proj.lora_down.weight": 2,
}

UP_OF = {".lora_down.": ".lora_up.", "lora.down.": "lora.up.", "lora_A": "lora_B"}


def up_key(down: str) -> str:
    for part, other in {**UP_OF, "layer.down.": "layer.up."}.items():
        down = down.replace(part, other)
    return down


def pair(down_key: str, rank: int = 2, width: int = 6, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    down = torch.randn(rank, width, generator=generator)
    up = torch.randn(width, rank, generator=generator)
    return {down_key: down, up_key(down_key): up}


@pytest.mark.parametrize("down_key", SPELLINGS.values(), ids=SPELLINGS)
def test_lora_from_tensors_every_unet_spelling_gives_identical_factors(down_key: str) -> None:
    tensors = pair(down_key)
    lora = lora_from_tensors(tensors)
    (name,) = lora.modules
    assert name in {f"lora_unet_{path.replace('.', '_')}" for path in (SGM, DIFFUSERS)}
    assert torch.equal(lora.modules[name].down, tensors[down_key])
    assert torch.equal(lora.modules[name].up, tensors[up_key(down_key)])
    assert lora.notes == ("no alpha in file: scale 1",)
    assert len(lora.formats) == 1


@pytest.mark.parametrize(("down_key", "encoder"), TEXT_SPELLINGS.items())
def test_lora_from_tensors_every_text_encoder_spelling_gives_one_name(
    down_key: str, encoder: int
) -> None:
    lora = lora_from_tensors(pair(down_key))
    name = f"lora_te{encoder}_text_model_encoder_layers_3_self_attn_q_proj"
    assert list(lora.text_encoder()) == [name] and not lora.unet()


@pytest.mark.parametrize(
    "stem",
    [
        "lora_te2_text_projection",
        "text_encoder_2.text_projection",
        "text_encoders.clip_g.transformer.text_projection",
        "clip_g.text_projection",
    ],
)
def test_name_module_text_projection_stands_outside_the_text_model(stem: str) -> None:
    assert name_module(stem)[0] == "lora_te2_text_projection"


@pytest.mark.parametrize(
    "key",
    [f"unet.{OUT}.0.lora_A.weight", f"unet.{OUT.replace('to_', 'processor.to_')}_lora.up.weight"],
)
def test_name_module_output_projection_always_ends_in_zero(key: str) -> None:
    expected = f"lora_unet_{OUT.replace('.', '_')}_0"
    assert name_module(split_key(key)[0])[0] == expected


def test_name_module_old_text_output_projection_gets_its_name() -> None:
    stem = split_key(f"text_encoder.text_model.{LAYER}.to_out_lora.down.weight")[0]
    assert name_module(stem)[0].endswith("_self_attn_out_proj")


FORMATS = {
    "kohya": "kohya",
    "comfy": "Comfy-native",
    "omi": "OMI",
    "scripts": "diffusers",
    "diffusers": "diffusers (PEFT)",
    "peft": "PEFT",
    "lycoris": "LyCORIS names",
    "bare sgm": "names without a prefix",
}


@pytest.mark.parametrize(("spelling", "words"), FORMATS.items())
def test_lora_from_tensors_formats_name_the_spelling(spelling: str, words: str) -> None:
    assert lora_from_tensors(pair(SPELLINGS[spelling])).formats == (words,)


AMBIGUOUS: dict[str, Mapping[str, Tensor]] = {
    "two prefixes": pair(SPELLINGS["kohya"]) | pair(SPELLINGS["comfy"]),
    "two suffixes": pair(SPELLINGS["comfy"]) | pair(SPELLINGS["comfy A"]),
    "two adapters": pair(SPELLINGS["adapter name"])
    | pair(SPELLINGS["adapter name"].replace("default", "other")),
    "one half each": {
        SPELLINGS["kohya"]: torch.ones(2, 6),
        up_key(SPELLINGS["comfy"]): torch.ones(6, 2),
    },
}


@pytest.mark.parametrize("tensors", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_lora_from_tensors_two_spellings_of_one_module_are_ambiguous(
    tensors: Mapping[str, Tensor],
) -> None:
    with pytest.raises(ZipLoRAError, match="a second spelling of the module that"):
        lora_from_tensors(tensors)


@pytest.mark.parametrize("end", [".lora_embedding_A", ".weight", ".lokr_t1", ".lora_down", ".bias"])
def test_lora_from_tensors_unknown_suffix_is_named(end: str) -> None:
    tensors = pair(SPELLINGS["kohya"]) | {f"lora_unet_x{end}": torch.ones(2, 2)}
    with pytest.raises(ZipLoRAError, match=f"key lora_unet_x{end}: found an ending that no LoRA"):
        lora_from_tensors(tensors)


@pytest.mark.parametrize("half", [0, 1])
def test_lora_from_tensors_orphan_names_its_key(half: int) -> None:
    orphan = list(pair("lora_unet_b.lora_down.weight").items())[half]
    words = ("down without up", "up without down")[half]
    with pytest.raises(ZipLoRAError, match=f"key {orphan[0]}: found {words}"):
        lora_from_tensors(pair(SPELLINGS["kohya"]) | dict([orphan]))


def test_lora_from_tensors_embeddings_and_trainer_state_are_left_out_with_a_note() -> None:
    extra = {"bundle_emb.mydog.clip_l": torch.ones(1, 768), "_aux.step": torch.tensor(3)}
    lora = lora_from_tensors(pair(SPELLINGS["kohya"]) | extra)
    assert len(lora.modules) == 1
    assert "2 tensors left out: _aux.step, bundle_emb.mydog" in lora.notes
