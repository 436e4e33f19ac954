"""Recombination and import of UnZipLoRA's merges, on factors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ziplora_core.errors import ZipLoRAError
from ziplora_core.files import read_lora
from ziplora_core.files.merge_file import merged_from_lora, merged_metadata
from ziplora_core.files.writer import write_lora
from ziplora_core.lora.factors import LoRA, LoraFactors
from ziplora_core.lora.merged import MergedLoRA, truncated
from ziplora_core.lora.pair import ModulePair, pair_modules
from ziplora_core.unziplora.separate_prompts import (
    fold_mergers,
    merge_from_files,
    recombine,
    recombine_report,
)

from ..lora.factors import random_factors

NAME = "lora_unet_middle_block_1_transformer_blocks_0_attn{}"
BOTH, CONTENT_ONLY, STYLE_ONLY = (NAME.format(n) for n in ("1_to_q", "2_to_k", "2_to_v"))


def picture(seed: int) -> MergedLoRA:
    """Make the result of one training: layers that one half has nothing of are missing there."""
    content = {n: random_factors(4, 12, 8, seed=seed + n.count("q")) for n in (BOTH, CONTENT_ONLY)}
    style = {n: random_factors(4, 12, 8, seed=seed + 5) for n in (BOTH, STYLE_ONLY)}
    said = {
        "ziplora.method": "unziplora",
        "ziplora.settings": json.dumps({"prompt": f"cat {seed}"}),
        "modelspec.trigger_phrase": f"cat {seed}",
    }
    return MergedLoRA(pair_modules(content, style), metadata=said, prompt_separated=True)


def half(merged: MergedLoRA, content: float) -> dict[str, LoraFactors]:
    return merged.modules(content, 1 - content)


def assert_same(got: dict[str, LoraFactors], want: dict[str, LoraFactors]) -> None:
    assert {*got} == {*want}
    for name, factors in want.items():
        assert torch.equal(got[name].down, factors.down), name
        assert torch.equal(got[name].scale * got[name].up, factors.scale * factors.up), name


def test_recombine_a_picture_with_itself_is_that_picture_bit_for_bit() -> None:
    merged = picture(1)
    again = recombine(merged, merged)
    assert_same(again.modules(), merged.modules())
    assert again.prompt_separated and again.separable


def test_recombine_takes_each_half_as_it_is_and_names_both_sources() -> None:
    a, b = picture(1), picture(2)
    merged = recombine(a, b)
    assert_same(half(merged, 1), half(a, 1))
    assert_same(half(merged, 0), half(b, 0))
    said = json.loads(merged.metadata["ziplora.content"])
    assert json.loads(said["settings"]) == {"prompt": "cat 1"}
    assert json.loads(merged.metadata["ziplora.style"])["name"] == "cat 2"
    assert merged.metadata["modelspec.merged_from"] == "cat 1, cat 2"
    assert "3 modules, 1 of them in both" in recombine_report(merged)


def test_recombine_again_remembers_where_each_half_was_learned() -> None:
    first = recombine(picture(1), picture(2))
    merged = recombine(picture(3), first)
    assert json.loads(merged.metadata["ziplora.content"])["name"] == "cat 3"
    assert json.loads(merged.metadata["ziplora.style"])["name"] == "cat 2"


def test_recombine_of_files_with_damaged_metadata_works() -> None:
    damaged = MergedLoRA(
        picture(1).pairs, metadata={"ziplora.content": "{", "ziplora.settings": "["},
        prompt_separated=True,
    )  # fmt: skip
    assert "content of an unnamed source" in recombine_report(recombine(damaged, damaged))


def test_recombine_after_save_and_load_is_the_same(tmp_path: Path) -> None:
    a, b = picture(1), picture(2)
    loaded = []
    for n, merged in enumerate((a, b)):
        path = tmp_path / f"{n}.safetensors"
        write_lora(path, merged.modules(), merged_metadata(merged), "fp32")
        loaded.append(merged_from_lora(read_lora(path)))
    got, want = recombine(*loaded), recombine(a, b)
    assert got.prompt_separated
    for content in (0, 1):
        for name, factors in half(want, content).items():
            torch.testing.assert_close(half(got, content)[name].delta(), factors.delta())


def test_recombine_refuses_other_merges_and_other_architectures() -> None:
    merged = picture(1)
    plain = MergedLoRA(merged.pairs)
    one, _ = truncated(merged, 2)
    for other in (plain, one):
        with pytest.raises(ZipLoRAError, match="style_from: found a merge whose content and style"):
            recombine(merged, other)
    wide = MergedLoRA(
        {BOTH: ModulePair(style=random_factors(4, 12, 9, seed=1))}, prompt_separated=True
    )
    with pytest.raises(ZipLoRAError, match="found updates of weights"):
        recombine(merged, wide)


def test_merge_of_two_files_folds_mergers_into_the_rows_of_up() -> None:
    content, style = (LoRA(f"{n}.safetensors", {BOTH: random_factors(4, 12, 8, seed=n)}, sha256="x")
                      for n in (1, 2))  # fmt: skip
    m = torch.rand(len(content.modules[BOTH].up))
    merged = merge_from_files(fold_mergers(content, {BOTH: m}), style)
    got = half(merged, 1)[BOTH].delta()
    torch.testing.assert_close(got, m[:, None] * content.modules[BOTH].delta())
    torch.testing.assert_close(half(merged, 0)[BOTH].delta(), style.modules[BOTH].delta())
    assert merged.prompt_separated and '"1.safetensors"' in merged.metadata["ziplora.content"]
