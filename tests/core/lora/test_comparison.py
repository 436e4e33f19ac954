"""A pair's warnings before its merge: the same LoRA, very unequal ones, one that does nothing."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from ziplora_core.errors import ZipLoRAError
from ziplora_core.lora.comparison import (
    compare,
    has_update,
    idle_unets,
    norm_lines,
    refuse_no_update,
    sameness_warnings,
    with_update,
)
from ziplora_core.lora.factors import LoRA, LoraFactors
from ziplora_core.lora.pair import LoRAPair, pair_modules, scaled

from .factors import random_factors

Modules = dict[str, LoraFactors]


def modules(seed: int = 0) -> Modules:
    return {
        "lora_unet_a": random_factors(4, 40, 30, alpha=2.0, seed=seed),
        "lora_unet_b": random_factors(3, 24, 20, kernel=3, seed=seed + 1),
    }


def gauged(all_modules: Modules) -> Modules:
    """The same updates, split otherwise into up and down."""
    turned = {}
    for name, f in all_modules.items():
        mix = torch.linalg.qr(random_factors(f.rank, f.rank, f.rank, seed=9).down).Q * 3
        down = torch.einsum("rs,s...->r...", mix, f.down)
        up = torch.einsum("os...,sr->or...", f.up, torch.linalg.inv(mix))
        turned[name] = LoraFactors(down, up, f.alpha)
    return turned


def test_compare_has_the_norms_and_the_cosine_of_the_dense_updates() -> None:
    content, style = modules(), modules(5)
    style["lora_unet_c"] = random_factors(2, seed=7)
    got = compare(pair_modules(content, style))
    shared = [
        torch.cat([m[name].delta().flatten() for name in content]).double()
        for m in (content, style)
    ]
    whole = torch.cat([f.delta().flatten() for f in style.values()]).double()
    assert got.content == pytest.approx(float(shared[0].norm()), rel=1e-6)
    assert got.style == pytest.approx(float(whole.norm()), rel=1e-6)
    cosine = torch.cosine_similarity(*shared, dim=0)
    assert got.cosine == pytest.approx(float(cosine), abs=1e-6)
    assert sameness_warnings(got) == []


@pytest.mark.parametrize("scale", [1.0, 0.2, 7.0])
def test_sameness_warnings_of_one_lora_twice_whatever_its_strength_and_factors(
    scale: float,
) -> None:
    got = compare(pair_modules(modules(), scaled(gauged(modules()), scale)))
    (warning,) = sameness_warnings(got)
    assert "content and style are the same LoRA" in warning and "1.0000" in warning


def test_sameness_warnings_of_two_saves_of_one_training_and_of_the_inverse() -> None:
    noisy = {
        name: replace(f, up=f.up + 0.2 * torch.randn_like(f.up)) for name, f in modules().items()
    }
    (warning,) = sameness_warnings(compare(pair_modules(modules(), noisy)))
    assert "or nearly" in warning and "1.0000" not in warning
    (warning,) = sameness_warnings(compare(pair_modules(modules(), scaled(modules(), -1))))
    assert "negative" in warning and "cancels" in warning


def test_compare_of_other_shapes_under_one_name_counts_them_as_not_shared() -> None:
    got = compare(
        pair_modules({"lora_unet_a": random_factors(4)}, {"lora_unet_a": random_factors(4, 7)})
    )
    assert got.content > 0 and got.style > 0 and got.cosine == 0


def lines_at(content: float, style: float, size: float) -> list[str]:
    pair = LoRAPair(LoRA("c", modules()), LoRA("s", scaled(modules(5), size)), content, style)
    halves = scaled(pair.content.modules, content), scaled(pair.style.modules, style)
    return norm_lines(compare(pair_modules(*halves)), pair)


def test_norm_lines_of_similar_loras_are_the_norms_alone() -> None:
    (line,) = lines_at(1, 1, 1.5)
    assert line.startswith("size of the updates at these strengths")
    assert lines_at(0, 1, 1) == []


@pytest.mark.parametrize(("content", "style"), [(1.0, 1.0), (0.5, -0.8)])
def test_norm_lines_strengths_that_balance_make_both_equally_large(
    content: float, style: float
) -> None:
    _, line = lines_at(content, style, 8)
    assert line.startswith("the style will dominate")
    balanced = [float(number) for number in re.findall(r"_strength (-?\d+(?:\.\d+)?)", line)]
    assert balanced[0] == content and (balanced[1] < 0) == (style < 0)
    halves = scaled(modules(), balanced[0]), scaled(modules(5), 8 * balanced[1])
    got = compare(pair_modules(*halves))
    assert got.content == pytest.approx(got.style, rel=0.06)  # two digits are said


def idle(f: LoraFactors, how: str) -> LoraFactors:
    if how == "alpha 0":
        return replace(f, alpha=0.0)
    if how == "by rank":
        down, up = f.down.clone(), f.up.clone()
        down[0], up[:, 1:] = 0, 0
        return LoraFactors(down, up, f.alpha)
    return replace(f, **{how: torch.zeros_like(getattr(f, how))})


@pytest.mark.parametrize("how", ["up", "down", "alpha 0", "by rank"])
def test_lora_that_does_nothing_is_refused_by_name(how: str) -> None:
    nothing = {name: idle(f, how) for name, f in modules().items()}
    assert not any(f.delta().any() for f in nothing.values())
    with pytest.raises(ZipLoRAError, match=r"x \(style\): found a LoRA that does nothing.*2 modul"):
        refuse_no_update(LoRA("x", nothing), "style")
    refuse_no_update(LoRA("x", nothing | {"lora_unet_c": random_factors(1)}), "style")
    assert list(with_update(nothing | {"lora_unet_c": random_factors(1)})) == ["lora_unet_c"]
    assert has_update(random_factors(1))


def test_idle_unets_names_the_lora_whose_text_encoder_is_all_that_acts() -> None:
    nothing = {name: idle(f, "up") for name, f in modules().items()}
    half = LoRA("x", nothing | {"lora_te1_a": random_factors(1)})
    (warning,) = idle_unets(LoRAPair(LoRA("c", modules()), half))
    assert warning.startswith("x (style) does nothing in the UNet") and "2 UNet" in warning
