"""LoRAs that do nothing, or nothing in some blocks: named alike by every method and solver."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.sd
import pytest
import torch
from comfy.model_patcher import ModelPatcher

from ziplora_core.comfy_adapter.model.pair_on_model import merge_pair
from ziplora_core.comfy_adapter.tools.calibration import CalibrationPrompts, calibrate
from ziplora_core.comfy_adapter.train.ziplora import ZipLoRAResult, train_ziplora
from ziplora_core.comfy_adapter.train.ziplora_inputs import Prompt
from ziplora_core.errors import ZipLoRAError
from ziplora_core.lora.factors import LoraFactors
from ziplora_core.lora.pair import LoRAPair
from ziplora_core.merging import CALIBRATED, METHODS, MergeSettings
from ziplora_core.training.interface import ProgressCallbacks
from ziplora_core.training.options import TrainingOptions
from ziplora_core.ziplora.options import ZipLoRASettings

from .. import helpers

SETTINGS = ZipLoRASettings(
    steps=2, width=64, height=64, calibration_states=2, options=TrainingOptions(held_out_draws=0)
)
SOLVERS = ("adam", "closed_form", "closed_form_then_adam")
NOTHING = r"^style.safetensors \(style\): found a LoRA that does nothing: the update of each of its"


def idle(factors: LoraFactors) -> LoraFactors:
    """Untrained, as a trainer starts: up is zero."""
    return replace(factors, up=torch.zeros_like(factors.up))


def pair_with_idle_style() -> LoRAPair:
    pair = helpers.lora_pair()
    modules = {name: idle(factors) for name, factors in pair.style.modules.items()}
    return replace(pair, style=replace(pair.style, modules=modules))


def learned(
    model: ModelPatcher, clip: comfy.sd.CLIP, pair: LoRAPair, solver: str, folder: Path,
    **callbacks: Any,
) -> ZipLoRAResult:  # fmt: skip
    with torch.inference_mode():
        prompts = [
            Prompt(name, conditioning, {"samples": torch.ones(1, 4, 8, 8)})
            for name, conditioning in zip(("content", "style"), helpers.prompts(clip), strict=True)
        ]
        settings, told = replace(SETTINGS, solver=solver), ProgressCallbacks(**callbacks)
        return train_ziplora(model, pair, prompts, settings, folder, told)


@pytest.mark.parametrize("method", METHODS)
def test_lora_that_does_nothing_is_named_by_every_method(
    method: str, model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    pair = pair_with_idle_style()
    with pytest.raises(ZipLoRAError, match=NOTHING):
        if method in CALIBRATED:
            prompts = CalibrationPrompts(*helpers.prompts(clip), width=64, height=64)
            calibrate(model, pair, prompts)
        merge_pair(model.model, pair, method, MergeSettings())


@pytest.mark.parametrize("solver", SOLVERS)
def test_lora_that_does_nothing_is_named_by_every_solver(
    solver: str, model: ModelPatcher, clip: comfy.sd.CLIP, tmp_path: Path
) -> None:
    with pytest.raises(ZipLoRAError, match=NOTHING):
        learned(model, clip, pair_with_idle_style(), solver, tmp_path)


def test_lora_of_which_only_the_text_encoder_acts_is_named(
    model: ModelPatcher, clip: comfy.sd.CLIP, tmp_path: Path
) -> None:
    pair = pair_with_idle_style()
    name = "lora_te1_text_model_encoder_layers_0_mlp_fc1"
    text = {name: LoraFactors(torch.ones(1, 32), torch.ones(64, 1))}
    pair = replace(pair, style=replace(pair.style, modules={**pair.style.modules, **text}))
    merged, report = merge_pair(model.model, pair, "direct", MergeSettings())
    said = r"style.safetensors (style) does nothing in the UNet: the update of each of its"
    assert report.startswith(f"WARNING: {said}")
    assert all(p.style is None for p in merged.pairs.values()) and merged.text_encoder
    with pytest.raises(ZipLoRAError, match="does nothing in the UNet"):
        learned(model, clip, pair, "closed_form", tmp_path)


@pytest.mark.parametrize("solver", SOLVERS)
def test_block_that_is_off_in_one_lora_leaves_the_other_as_it_is(
    solver: str, model: ModelPatcher, clip: comfy.sd.CLIP, tmp_path: Path
) -> None:
    pair = helpers.lora_pair()
    off = {name for name in pair.style.modules if "output_blocks" in name}
    style = replace(
        pair.style,
        modules={
            n: replace(f, alpha=0.0) if n in off else f for n, f in pair.style.modules.items()
        },
    )
    merged = learned(model, clip, replace(pair, style=style), solver, tmp_path).merged
    assert off and merged.coefficients and not off & merged.coefficients.keys()
    modules = merged.modules()
    for name in off:
        torch.testing.assert_close(modules[name].delta(), pair.content.modules[name].delta())


@pytest.mark.parametrize("solver", ["adam", "closed_form"])
def test_same_lora_twice_is_a_warning_of_every_way_to_merge(
    solver: str, model: ModelPatcher, clip: comfy.sd.CLIP, tmp_path: Path
) -> None:
    pair = helpers.lora_pair()
    twice = replace(pair, style=replace(pair.content, name="again.safetensors"))
    said = "content and style are the same LoRA, or nearly (cosine of their updates 1.0000)"
    for method in METHODS.keys() - CALIBRATED:
        assert said in merge_pair(model.model, twice, method, MergeSettings())[1].splitlines()[0]
    early: list[str] = []
    report = learned(model, clip, twice, solver, tmp_path, on_status=early.append).report
    assert any(f"WARNING: {said}" in line for line in report.splitlines())
    assert early and all(f"WARNING: {said}" in text for text in early)  # before the first step
    assert "same LoRA" not in learned(model, clip, pair, solver, tmp_path).report
