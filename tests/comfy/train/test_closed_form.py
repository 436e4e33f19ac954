"""The closed form: compared with gradient steps, in every layer choice, and after a cancel."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.sd
import pytest
import torch
from comfy.model_patcher import ModelPatcher

from sandbox import tiny
from ziplora_core.comfy_adapter.train.ziplora import ZipLoRAResult, train_ziplora
from ziplora_core.comfy_adapter.train.ziplora_inputs import Prompt, joint_prompts
from ziplora_core.training.interface import ProgressCallbacks
from ziplora_core.training.options import TrainingOptions
from ziplora_core.ziplora.options import ZipLoRASettings

from .. import helpers

SETTINGS = ZipLoRASettings(
    width=64,
    height=64,
    solver="closed_form",
    memory="fast",
    options=TrainingOptions(held_out_draws=4),
)


def run(
    model: ModelPatcher,
    clip: comfy.sd.CLIP,
    folder: Path,
    settings: ZipLoRASettings,
    strength: float = 1.0,
    joint: int = 0,
    **callbacks: Any,
) -> ZipLoRAResult:
    with torch.inference_mode():
        content, style = helpers.prompts(clip)
        prompts = [Prompt("content", content), Prompt("style", style)]
        if joint:  # the prompt as often
            asked = helpers.encode(clip, "sks dog in watercolor style")
            prompts += joint_prompts(joint * asked)
        pair = helpers.lora_pair(strength, strength)
        return train_ziplora(model, pair, prompts, settings, folder, ProgressCallbacks(**callbacks))


def retention(result: ZipLoRAResult) -> float:
    match = re.search(r"sum: [\d.]+ → ([\d.]+)", result.report)
    assert match
    return float(match.group(1))


@pytest.fixture(scope="module")
def hundred_steps(tmp_path_factory: pytest.TempPathFactory) -> dict[float, ZipLoRAResult]:
    """The results of a hundred gradient steps, by the pair's strength."""
    stepped = replace(SETTINGS, solver="adam", similarity_weight=0.01)  # the published weight
    folder = tmp_path_factory.mktemp("stepped")
    model, clip = tiny.tiny_sdxl(), tiny.tiny_clip()
    return {strength: run(model, clip, folder, stepped, strength) for strength in (0.5, 1.0)}


@pytest.mark.thorough
def test_closed_form_keeps_as_much_as_a_hundred_steps_or_far_more(
    hundred_steps: dict[float, ZipLoRAResult],
    model: ModelPatcher,
    clip: comfy.sd.CLIP,
    tmp_path: Path,
) -> None:
    """How much more depends on the LoRAs: the weaker they are, the more the penalty costs."""
    for strength, ratio in ((0.5, 0.8), (1.0, 1.3)):
        solved = run(model, clip, tmp_path, SETTINGS, strength)
        assert retention(solved) <= ratio * retention(hundred_steps[strength])
        assert re.findall("WARNING: (.*) is open", solved.report) == ["joint_conditioning"]
        assert "closed form: 2 passes over 25 + 25 calibration samples" in solved.report
        assert len(solved.merged.coefficients) == 88


def test_joint_prompt_holds_the_strength_of_the_merge(
    model: ModelPatcher, clip: comfy.sd.CLIP, tmp_path: Path
) -> None:
    def figures(result: ZipLoRAResult) -> tuple[float, float]:
        kept = re.search(r"‖merged‖ / ‖direct‖ in the shared modules: ([\d.]+)", result.report)
        held = re.search(r"at the joint prompt, .*: ([\d.]+)", result.report)
        assert kept
        return float(kept.group(1)), float(held.group(1)) if held else 0.0

    settings = replace(SETTINGS, calibration_states=8)
    (without, _), (kept, error) = (
        figures(run(model, clip, tmp_path, settings, joint=joint)) for joint in (0, 1)
    )
    assert without < kept <= 1.05 and 0 < error < 0.02


@pytest.mark.thorough
def test_several_joint_prompts_share_the_weight_of_one(
    model: ModelPatcher, clip: comfy.sd.CLIP, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, passes=1, calibration_states=9)  # it uses every sample
    one, three = (run(model, clip, tmp_path, settings, joint=count) for count in (1, 3))
    assert "9 + 9 + 27 calibration samples" in three.report
    for name, columns in one.merged.coefficients.items():
        torch.testing.assert_close(three.merged.coefficients[name], columns, rtol=1e-2, atol=1e-2)


@pytest.mark.thorough
def test_warm_start_needs_a_fifth_of_the_steps(
    hundred_steps: dict[float, ZipLoRAResult],
    model: ModelPatcher,
    clip: comfy.sd.CLIP,
    tmp_path: Path,
) -> None:
    warm = run(model, clip, tmp_path, replace(SETTINGS, solver="closed_form_then_adam", steps=20))
    assert retention(warm) <= 0.9 * retention(hundred_steps[1.0])
    assert "20 of 20 steps" in warm.report


@pytest.mark.thorough
def test_closed_form_is_bit_identical_and_depends_on_the_seed(
    model: ModelPatcher, clip: comfy.sd.CLIP, tmp_path: Path
) -> None:
    few = replace(SETTINGS, calibration_states=4)
    first, second, other = (
        run(model, clip, tmp_path, s).merged.coefficients for s in (few, few, replace(few, seed=1))
    )
    for name, columns in first.items():
        assert torch.equal(columns, second[name])
    assert any(not torch.equal(columns, other[name]) for name, columns in first.items())


@pytest.mark.parametrize("layers", ["attention_without_cross_kv", "all"])
def test_closed_form_of_other_layers(
    layers: str, model: ModelPatcher, clip: comfy.sd.CLIP, tmp_path: Path
) -> None:
    few = replace(SETTINGS, calibration_states=4, layers=layers)
    result = run(model, clip, tmp_path, few)
    coefficients = result.merged.coefficients.values()
    assert all(torch.isfinite(m).all() for m in coefficients)
    assert sum(bool((m - 1).abs().max() > 0.1) for m in coefficients) > 0.9 * len(coefficients)
    assert "keep coefficient 1" not in result.report


@pytest.mark.thorough
def test_cancel_in_the_closed_form_leaves_the_model_clean(
    model: ModelPatcher, clip: comfy.sd.CLIP, tmp_path: Path
) -> None:
    def cancel(done: int, total: int) -> None:
        assert done <= total
        if done > 0.8 * total:
            raise KeyboardInterrupt

    before = {key: weight.clone() for key, weight in model.model.state_dict().items()}
    with pytest.raises(KeyboardInterrupt):
        run(model, clip, tmp_path, SETTINGS, on_prepare=cancel)
    helpers.assert_untouched(model, before)


@pytest.mark.thorough
def test_memory_that_runs_out_costs_a_second_try(
    model: ModelPatcher, clip: comfy.sd.CLIP, tmp_path: Path
) -> None:
    few = replace(SETTINGS, calibration_states=4)
    asked: list[int] = []

    def run_out() -> bool:
        asked.append(1)
        if len(asked) == 1:  # before the second pass
            raise torch.OutOfMemoryError
        return False

    plain, again = (
        run(model, clip, tmp_path, few),
        run(model, clip, tmp_path, few, should_stop=run_out),
    )
    assert len(asked) == 2
    assert "memory ran out: the closed form went on" in again.report
    for name, columns in plain.merged.coefficients.items():
        torch.testing.assert_close(again.merged.coefficients[name], columns, rtol=1e-2, atol=1e-2)
