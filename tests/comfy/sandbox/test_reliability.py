"""What `make reliability` looks at after a fault: it notices each thing that may not be there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from comfy.model_patcher import ModelPatcher

from reliability.condition import condition, live_bytes, partial_files, temporary_files

KEY = "middle_block.1.transformer_blocks.0.attn1.to_q"


def _weight(model: Any, layer: torch.nn.Module) -> None:
    with torch.no_grad():
        layer.weight[0, 0] += 1e-6


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_weight, "weights"),
        (lambda model, layer: layer.register_forward_hook(lambda *_: None), "hooks"),
        (lambda model, layer: setattr(layer, "forward", layer.forward), "forwards"),
        (lambda model, layer: layer.weight.requires_grad_(True), "requires_grad"),
        (lambda model, layer: setattr(layer.weight, "grad", layer.weight.clone()), "gradients"),
        (lambda model, layer: model.add_object_patch("model_sampling", 1), "object_patches"),
        (lambda model, layer: model.set_injections("ours", []), "injections"),
    ],
)
def test_condition_notices_what_is_left_on_a_model(
    change: Any, named: str, model: ModelPatcher
) -> None:
    model.model.requires_grad_(False)
    before = condition({"model": model})
    assert condition({"model": model}) == before
    change(model, model.model.diffusion_model.get_submodule(KEY))
    after = condition({"model": model})
    assert [key for key in after if after[key] != before[key]] == [f"model, {named}"]


def test_tensor_that_stays_is_counted_and_those_of_the_models_are_not(model: ModelPatcher) -> None:
    before = live_bytes({"model": model})
    kept = [torch.zeros(1000), torch.zeros(1000).view(10, 100)]
    assert live_bytes({"model": model}) - before == 8000
    layer = model.model.diffusion_model.get_submodule(KEY)
    layer.weight = torch.nn.Parameter(layer.weight.detach().clone())
    assert live_bytes({"model": model}) - before == 8000
    kept.clear()
    assert live_bytes({"model": model}) == before


def test_files_that_are_cut_or_unfinished_are_noticed(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(100)}, tmp_path / "state.pt")
    assert partial_files(tmp_path) == [] == temporary_files(tmp_path)
    whole = (tmp_path / "state.pt").read_bytes()
    (tmp_path / "state.pt").write_bytes(whole[:-50])
    (tmp_path / "lora.safetensors").write_bytes(whole[:20])
    (tmp_path / ".0123.tmp").write_bytes(whole)
    assert sorted(name.split(":")[0] for name in partial_files(tmp_path)) == [
        "lora.safetensors",
        "state.pt",
    ]
    assert temporary_files(tmp_path) == [".0123.tmp"]
