"""A header shows base, rank and trigger words at a glance."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from ziplora_core.errors import ZipLoRAError
from ziplora_core.files.glance import glance_at, other_base

SDXL = "lora_unet_input_blocks_8_1_transformer_blocks_9_attn2_to_k"
SD1 = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"


def write(
    path: Path, shapes: dict[str, tuple[int, ...]], metadata: dict[str, str] | None = None
) -> Path:
    tensors = {key: torch.zeros(shape) for key, shape in shapes.items()}
    path.write_bytes(safetensors.torch.save(tensors, metadata or {}))
    return path


def lora(module: str, rank: int, width: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{module}.lora_down.weight": (rank, width),
        f"{module}.lora_up.weight": (8, rank),
        f"{module}.alpha": (),
    }


def test_glance_at_a_lora_shows_base_range_of_ranks_and_words_once(tmp_path: Path) -> None:
    other = SDXL.replace("9", "8")
    shapes = {**lora(SDXL, 4, 2048), **lora(other, 16, 2048)}
    tags = '{"10_dog": {"sks dog": 9, " sks  dog": 8, "park": 2, "grass": 1}}'
    glance = glance_at(write(tmp_path / "a", shapes, {"ss_tag_frequency": tags}), "a")
    assert (glance.base, glance.is_lora) == ("SDXL", True)
    assert (glance.ranks, glance.words) == ((4, 16), ("sks dog", "park"))


@pytest.mark.parametrize(
    ("shapes", "ranks"),
    [
        ({f"{SDXL}.{part}": (3, 3) for part in ("hada_w1_a", "hada_w2_a", "hada_w1_b",
                                                "hada_w2_b")}, (3, 3)),
        ({f"{SDXL}.lokr_w1": (2, 2), f"{SDXL}.lokr_w2_a": (4, 5), f"{SDXL}.lokr_w2_b": (5, 9)},
         (5, 5)),
        ({"unet:0:down": (7, 768), "unet:0:up": (320, 7)}, (7, 7)),
        ({f"{SDXL}.diff": (8, 2048)}, ()),
    ],
    ids=["LoHa", "LoKr", "numbered", "full difference"],
)  # fmt: skip
def test_glance_at_other_kinds_of_update_shows_their_rank(
    shapes: dict[str, tuple[int, ...]], ranks: tuple[int, ...], tmp_path: Path
) -> None:
    assert glance_at(write(tmp_path / "a", shapes), "a").ranks == ranks


def test_glance_at_a_checkpoint_says_that_it_is_no_lora(tmp_path: Path) -> None:
    shapes = {"model.diffusion_model.out.2.weight": (4, 4)}
    glance = glance_at(write(tmp_path / "a", shapes), "a")
    assert not glance.is_lora and glance.ranks == ()


def test_other_base_names_only_what_is_not_sdxl(tmp_path: Path) -> None:
    assert other_base(write(tmp_path / "a", lora(SD1, 4, 768)), "a") == "Stable Diffusion 1.x"
    assert other_base(write(tmp_path / "b", lora(SDXL, 4, 2048)), "b") == ""
    unknown = lora("lora_unet_middle_block_1_proj_in", 4, 64)
    assert other_base(write(tmp_path / "c", unknown), "c") == ""


def test_other_base_of_a_part_of_many_keys_is_that_of_all(tmp_path: Path) -> None:
    blocks = [(n, m) for n in (4, 5, 7, 8) for m in range(2 if n < 6 else 10)]
    shapes: dict[str, tuple[int, ...]] = {}
    for n, m in blocks:
        for part, width in (("attn1_to_q", 1280), ("attn2_to_k", 2048), ("ff_net_2", 5120)):
            shapes |= lora(f"lora_unet_input_blocks_{n}_1_transformer_blocks_{m}_{part}", 2, width)
    for n in range(500):  # more than are looked at
        shapes[f"lora_te1_text_model_encoder_layers_{n}_mlp_fc1.alpha"] = ()
    flux = {key.replace("input_blocks", "double_blocks"): shape for key, shape in shapes.items()}
    flux = {key.replace("_transformer_blocks", "_x"): shape for key, shape in flux.items()}
    assert other_base(write(tmp_path / "a", shapes), "a") == ""
    assert other_base(write(tmp_path / "b", flux), "b") == glance_at(tmp_path / "b", "b").base
    assert glance_at(tmp_path / "b", "b").base == "FLUX.1"


@pytest.mark.parametrize("look", [glance_at, other_base])
def test_damaged_header_is_refused(look: object, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"\xff" * 64)
    assert callable(look)
    with pytest.raises(ZipLoRAError, match="safetensors header"):
        look(path, "a")
