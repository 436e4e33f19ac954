"""Numbered modules: what tells them apart, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from ziplora_core.errors import ZipLoRAError
from ziplora_core.files import lora_from_tensors, read_lora
from ziplora_core.files.numbered_modules import module_order

BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0"
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


def targets(width: int, context: int, gate: int) -> dict[str, tuple[int, ...]]:
    """One transformer block with everything around it that the trainer leaves alone."""
    linears = {f"{BLOCK}.attn1.{leaf}": (width, width) for leaf in ATTENTION}
    linears |= {
        f"{BLOCK}.attn2.{leaf}": (width, context if leaf in ("to_k", "to_v") else width)
        for leaf in ATTENTION
    }
    others = ("proj_in", "transformer_blocks.0.ff.net.2", "proj_out")
    return {
        "conv_in": (width, 4, 3, 3),
        **{f"down_blocks.1.attentions.0.{name}": (width, width) for name in others},
        f"{BLOCK}.ff.net.0.proj": (gate, width),
        **linears,
        "down_blocks.1.downsamplers.0.conv": (width, width, 3, 3),
    }


SHAPES = targets(8, 6, 64)
NEWER = module_order(SHAPES, ("attn1", "attn2", "ff"))


def numbered(
    order: list[str], shapes: dict[str, tuple[int, ...]], network: str = "unet"
) -> dict[str, Tensor]:
    """Rank-1 factors full of their own number."""
    tensors = {}
    for i, path in enumerate(order):
        out, width = shapes[path]
        tensors[f"{network}:{i}:up"] = torch.full((out, 1), float(i))
        tensors[f"{network}:{i}:down"] = torch.ones(1, width)
    return tensors


def save(tmp_path: Path, tensors: dict[str, Tensor]) -> Path:
    safetensors.torch.save_file(tensors, tmp_path / "old.safetensors")
    return tmp_path / "old.safetensors"


def test_module_order_leaves_out_what_the_trainer_does_not_adapt() -> None:
    assert module_order(SHAPES, ("attn2",)) == [f"{BLOCK}.attn2.{leaf}" for leaf in ATTENTION]
    assert NEWER[8] == f"{BLOCK}.ff.net.0.proj" and len(NEWER) == 9


def test_module_order_counts_blocks_down_up_then_mid_and_by_number() -> None:
    places = ("down_blocks.2", "down_blocks.10", "up_blocks.0", "mid_block")
    paths = [
        f"{place}.{kind}"
        for place in places
        for kind in ("attentions.0.transformer_blocks.1.attn1.to_q", "resnets.1.conv1")
    ]
    assert module_order(reversed(paths), ("attn1", "resnets")) == paths


def test_read_lora_numbers_get_their_modules(tmp_path: Path) -> None:
    lora = read_lora(save(tmp_path, numbered(NEWER, SHAPES)), targets=SHAPES)
    assert list(lora.modules) == [f"lora_unet_{path.replace('.', '_')}" for path in NEWER]
    assert [float(f.up[0, 0]) for f in lora.modules.values()] == list(range(9))


def test_read_lora_shapes_that_fit_two_orders_are_ambiguous(tmp_path: Path) -> None:
    alike = targets(8, 8, 8)
    with pytest.raises(
        ZipLoRAError, match="9 numbered modules that fit in 2 orders: 'attn1, ff, attn2' and"
    ):
        read_lora(save(tmp_path, numbered(NEWER, alike)), targets=alike)


def test_read_lora_orders_that_are_one_in_this_model_are_not_ambiguous(tmp_path: Path) -> None:
    shapes = {path: shape for path, shape in SHAPES.items() if ".ff." not in path}
    order = module_order(shapes, ("attn1", "attn2"))
    lora = read_lora(save(tmp_path, numbered(order, shapes)), targets=shapes)
    assert len(lora.modules) == 8


@pytest.mark.parametrize(
    ("drop", "missing"),
    [("unet:8:up", "unet:8:up"), ("unet:8:down", "unet:8:down"), ("unet:3", "unet:3:down")],
)
def test_read_lora_gap_in_the_numbers_names_it(drop: str, missing: str, tmp_path: Path) -> None:
    tensors = {k: t for k, t in numbered(NEWER, SHAPES).items() if not k.startswith(drop)}
    with pytest.raises(ZipLoRAError, match=rf"^old.safetensors, key {missing}: found no such ten"):
        read_lora(save(tmp_path, tensors), targets=SHAPES)


@pytest.mark.parametrize(
    ("up", "down"), [((7, 1), (1, 8)), ((8, 2), (1, 8)), ((8, 1), (1, 7)), ((8, 1, 2), (1, 8))]
)
def test_read_lora_one_wrong_shape_is_refused_with_the_count(
    up: tuple[int, ...], down: tuple[int, ...], tmp_path: Path
) -> None:
    tensors = numbered(NEWER, SHAPES)
    tensors |= {"unet:0:up": torch.ones(up), "unet:0:down": torch.ones(down)}
    with pytest.raises(ZipLoRAError, match="at best 8 of its 9 numbered shapes fit"):
        read_lora(save(tmp_path, tensors), targets=SHAPES)


def test_read_lora_numbers_before_and_after_the_models_are_refused(tmp_path: Path) -> None:
    for order in (NEWER[:-2], [*NEWER, NEWER[-1]]):
        with pytest.raises(ZipLoRAError, match="numbered shapes fit"):
            read_lora(save(tmp_path, numbered(order, SHAPES)), targets=SHAPES)


def test_read_lora_pt_list_without_a_partner_is_refused(tmp_path: Path) -> None:
    torch.save(list(numbered(NEWER, SHAPES).values())[:-1], tmp_path / "old.pt")
    with pytest.raises(ZipLoRAError, match=r"^old.pt, key unet:8:down: found no such tensor"):
        read_lora(tmp_path / "old.pt", targets=SHAPES)


def test_read_lora_pt_list_of_other_things_is_refused(tmp_path: Path) -> None:
    torch.save([torch.ones(2, 2), "a"], tmp_path / "old.pt")
    with pytest.raises(ZipLoRAError, match=r"^old.pt, key unet:0:up.*cloneofsimo"):
        read_lora(tmp_path / "old.pt", targets=SHAPES)


def test_read_lora_text_encoder_pt_is_the_text_encoders(tmp_path: Path) -> None:
    shapes = {str(i): (4, 4) for i in range(8)}
    parts = numbered([str(i) for i in range(8)], shapes)
    torch.save(list(parts.values()), tmp_path / "dog.text_encoder.pt")
    lora = read_lora(tmp_path / "dog.text_encoder.pt", targets=SHAPES)
    layer = "lora_te1_text_model_encoder_layers_1_self_attn"
    assert [float(lora.modules[f"{layer}_{leaf}"].up[0, 0]) for leaf in
            ("k_proj", "v_proj", "q_proj", "out_proj")] == [4, 5, 6, 7]  # fmt: skip
    assert lora.formats == ("cloneofsimo",)


@pytest.mark.parametrize("shapes", [[(4, 4)] * 5, [(4, 4)] * 3 + [(6, 4)], [(4, 6)] * 4])
def test_read_lora_other_text_encoder_is_refused(
    shapes: list[tuple[int, ...]], tmp_path: Path
) -> None:
    named = {str(i): shape for i, shape in enumerate(shapes)}
    tensors = numbered(NEWER, SHAPES) | numbered(list(named), named, "text_encoder")
    with pytest.raises(ZipLoRAError, match=r"^old.safetensors, text_encoder: found \d numbered"):
        read_lora(save(tmp_path, tensors), targets=SHAPES)


def test_read_lora_stray_tensor_beside_numbers_is_refused(tmp_path: Path) -> None:
    tensors = numbered(NEWER, SHAPES) | {"stray": torch.ones(2, 2)}
    with pytest.raises(ZipLoRAError, match="key stray: found an ending that no LoRA format uses"):
        read_lora(save(tmp_path, tensors), targets=SHAPES)


def test_lora_from_tensors_numbers_advise_import_lora() -> None:
    with pytest.raises(ZipLoRAError, match="Import LoRA"):
        lora_from_tensors(numbered(NEWER, SHAPES))


def test_read_lora_targets_change_nothing_for_other_files(tmp_path: Path) -> None:
    stem = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
    tensors = {
        f"{stem}.lora_down.weight": torch.ones(1, 4),
        f"{stem}.lora_up.weight": torch.ones(4, 1),
    }
    path = save(tmp_path, tensors)
    plain, with_targets = read_lora(path), read_lora(path, targets=SHAPES)
    assert plain.formats == with_targets.formats == ("kohya",)
    assert plain.notes == with_targets.notes and list(with_targets.modules) == [stem]
