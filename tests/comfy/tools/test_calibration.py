"""Merges with calibration, on the tiny SDXL."""

from __future__ import annotations

import re
from typing import Any

import comfy.sd
import pytest
import torch
from comfy.model_patcher import ModelPatcher

from ziplora_core.comfy_adapter.model.pair_on_model import merge_pair
from ziplora_core.comfy_adapter.tools.calibration import CalibrationPrompts, calibrate
from ziplora_core.errors import ZipLoRAError
from ziplora_core.lora.merged import MergedLoRA
from ziplora_core.merging import MergeSettings
from ziplora_core.training.interface import ProgressCallbacks

from .. import helpers


def prompts_of(clip: comfy.sd.CLIP, joint: bool = False, **drawing: Any) -> CalibrationPrompts:
    content, style = helpers.prompts(clip)
    both = helpers.encode(clip, "a photo of sks dog in watercolor style") if joint else None
    return CalibrationPrompts(content, style, both, **{"width": 64, "height": 64, **drawing})


def merged(
    model: ModelPatcher,
    prompts: CalibrationPrompts,
    method: str = "rank_space",
    rank: int = 0,
    callbacks: ProgressCallbacks | None = None,
) -> tuple[MergedLoRA, str]:
    pair = helpers.lora_pair()
    with torch.inference_mode():
        seen = calibrate(model, pair, prompts, callbacks or ProgressCallbacks())
        settings = MergeSettings(rank=rank, moments=seen.moments)
        result, report = merge_pair(model.model, pair, method, settings)
    return result, f"{report}\n{seen.report}"


def test_rank_space_merges_every_module_and_says_what_it_did(
    model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    before = {key: weight.clone() for key, weight in model.model.state_dict().items()}
    done: list[tuple[int, int]] = []
    callbacks = ProgressCallbacks(on_prepare=lambda *progress: done.append(progress))
    result, report = merged(model, prompts_of(clip), callbacks=callbacks)
    modules = result.modules()
    assert result.separable and all(f.rank <= 12 for f in modules.values())
    assert all(torch.isfinite(t).all() for f in modules.values() for t in (f.up, f.down))
    assert "WARNING" not in report and "tr(Router)/R: mean 0." in report
    assert "‖merged‖ / ‖direct‖" in report
    assert "calibrated on 8 + 8 samples" in report and "UNet evaluations: 32 samples" in report
    assert done[-1] == (32, 32)
    helpers.assert_untouched(model, before)


def test_joint_prompt_holds_the_strength(model: ModelPatcher, clip: comfy.sd.CLIP) -> None:
    shares = []
    for joint in (False, True):
        _, report = merged(model, prompts_of(clip, joint))
        (line,) = (line for line in report.splitlines() if line.startswith("tr(Router)/R"))
        shares.append(float(line.split("mean ")[1].split(",")[0]))
        assert ("no joint prompt" in report) is not joint
    assert "8 + 8 + 8 samples" in report and "48 samples" in report
    assert shares[1] > shares[0] + 0.05


def test_calibration_is_bit_identical_and_depends_on_the_seed(
    model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    first, second, other = (
        merged(model, prompts_of(clip, seed=seed))[0].modules() for seed in (0, 0, 1)
    )
    assert all(torch.equal(f.down, second[name].down) for name, f in first.items())
    assert any(not torch.equal(f.down, other[name].down) for name, f in first.items())


def test_prompts_of_different_lengths_are_drawn_one_by_one(
    model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    content, _ = helpers.prompts(clip)
    long = helpers.encode(clip, "a cat in watercolor style " * 20)
    assert long[0][0].shape[1] > content[0][0].shape[1]
    result, report = merged(model, CalibrationPrompts(content, long, width=64, height=64))
    assert result.separable and "WARNING" not in report


def test_prompts_make_the_rank_of_any_method_look_at_activations(
    model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    result, report = merged(model, prompts_of(clip), "direct", 4)
    assert all(f.rank <= 4 for f in result.modules().values())
    (line,) = (line for line in report.splitlines() if line.startswith("reduced to rank 4"))
    ours, plain = map(float, re.findall(r"([\d.]+)%", line))
    assert ours < plain


def test_cancel_leaves_the_model_clean(model: ModelPatcher, clip: comfy.sd.CLIP) -> None:
    before = {key: weight.clone() for key, weight in model.model.state_dict().items()}

    def cancel(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merged(model, prompts_of(clip), callbacks=ProgressCallbacks(on_prepare=cancel))
    helpers.assert_untouched(model, before)


def test_missing_prompts_are_said(model: ModelPatcher, clip: comfy.sd.CLIP) -> None:
    with pytest.raises(ZipLoRAError, match=r"method=rank_space: found no prompts.*Connect"):
        merge_pair(model.model, helpers.lora_pair(), "rank_space", MergeSettings())
    content, style = helpers.prompts(clip)
    assert not CalibrationPrompts().connected() and CalibrationPrompts(content, style).connected()
    for given, missing in (
        (CalibrationPrompts(content), "style_conditioning"),
        (CalibrationPrompts(style=style), "content_conditioning"),
        (CalibrationPrompts(joint=style), "content_conditioning and style_conditioning"),
    ):
        with pytest.raises(ZipLoRAError, match=f"^{missing}: found nothing connected"):
            given.connected()


def test_unusable_prompt_is_named(model: ModelPatcher, clip: comfy.sd.CLIP) -> None:
    content, style = helpers.prompts(clip)
    prompts = CalibrationPrompts(content, style, [*content, *style])
    with pytest.raises(ZipLoRAError, match=r"joint_conditioning: found 2 entries"):
        calibrate(model, helpers.lora_pair(), prompts)
