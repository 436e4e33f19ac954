"""ZipLoRA: it works or says why not, is deterministic, and leaves the MODEL unchanged."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.sd
import pytest
import torch
from comfy.model_patcher import ModelPatcher

from sandbox import tiny
from ziplora_core.comfy_adapter.model.pair_on_model import merge_pair
from ziplora_core.comfy_adapter.train.ziplora import ZipLoRAResult, train_ziplora
from ziplora_core.comfy_adapter.train.ziplora_inputs import Prompt
from ziplora_core.errors import ZipLoRAError
from ziplora_core.files import read_lora
from ziplora_core.files.merge_file import merged_from_lora
from ziplora_core.lora.merged import join
from ziplora_core.lora.pair import LoRAPair
from ziplora_core.merging import MergeSettings
from ziplora_core.training.interface import ProgressCallbacks, TrainingRecord
from ziplora_core.training.options import TrainingOptions
from ziplora_core.ziplora.options import ZipLoRASettings

from .. import helpers

SETTINGS = ZipLoRASettings(
    solver="adam", steps=6, width=64, height=64, options=TrainingOptions(held_out_draws=4)
)


def latents(pictures: int, *size: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return reference pictures as from VAE Encode: unscaled, of about SDXL's magnitude."""
    return {"samples": 7.0 * helpers.noise(pictures, 4, *size, seed=seed)}


CONTENT, STYLE = latents(2, 8, 8), latents(1, 8, 8, seed=1)
"""Reference latents of all tests but one; drawing them takes as long as many steps."""


def run(
    model: ModelPatcher,
    clip: comfy.sd.CLIP,
    folder: Path,
    settings: ZipLoRASettings = SETTINGS,
    content: Any = CONTENT,
    style: Any = STYLE,
    pair: LoRAPair | None = None,
    **callbacks: Any,
) -> ZipLoRAResult:
    with torch.inference_mode():  # as ComfyUI runs nodes
        prompts = helpers.prompts(clip)
        return train_ziplora(
            model,
            pair or helpers.lora_pair(),
            (Prompt("content", prompts[0], content), Prompt("style", prompts[1], style)),
            settings,
            folder,
            ProgressCallbacks(**callbacks),
        )


def retention_ratio(report: str) -> float:
    match = re.search(r"sum: .* \(× ([\d.]+)\)", report)
    assert match
    return float(match.group(1))


@pytest.mark.parametrize(
    "similarity",
    [
        "cosine",
        *(pytest.param(s, marks=pytest.mark.thorough) for s in ("dot_mean", "column_cosine")),
    ],
)
def test_optimise_halves_the_retention_loss_of_the_direct_merge(
    similarity: str, model: ModelPatcher, clip: comfy.sd.CLIP, tmp_path: Path
) -> None:
    settings = replace(
        SETTINGS, steps=100, similarity=similarity, options=TrainingOptions(held_out_draws=8)
    )
    result = run(model, clip, tmp_path, settings)
    assert retention_ratio(result.report) <= 0.5
    assert re.findall("WARNING: (.*) is open", result.report) == ["joint_conditioning"]
    assert result.report.count("WARNING") == 1
    assert len(result.merged.coefficients) == 88


@pytest.mark.thorough
def test_optimise_without_latents_learns_from_the_loras_own_pictures(
    model: ModelPatcher, clip: comfy.sd.CLIP, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, steps=100, options=TrainingOptions(held_out_draws=8))
    result = run(model, clip, tmp_path, settings, content=None, style=None)
    assert retention_ratio(result.report) <= 0.5


@pytest.mark.thorough
def test_optimise_tiny_learning_rate_says_that_nothing_moved(
    model: ModelPatcher, clip: comfy.sd.CLIP, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, steps=100, learning_rate=5e-5)
    result = run(model, clip, tmp_path, settings)
    assert result.report.startswith("WARNING: nothing was learned")
    assert all((m - 1).abs().max() <= 0.02 for m in result.merged.coefficients.values())


@pytest.mark.thorough
def test_optimise_dot_sum_collapse_is_reported(
    model: ModelPatcher, clip: comfy.sd.CLIP, tmp_path: Path
) -> None:
    result = run(model, clip, tmp_path, replace(SETTINGS, steps=100, similarity="dot_sum"))
    assert "WARNING: the content coefficients collapsed" in result.report
    assert "WARNING: the style coefficients collapsed" in result.report


def test_optimise_diverging_learning_rate_is_an_error_that_names_it(
    model: ModelPatcher, clip: comfy.sd.CLIP, tmp_path: Path
) -> None:
    with pytest.raises(ZipLoRAError, match=r"not finite at step.*Lower the learning rate"):
        run(model, clip, tmp_path, replace(SETTINGS, steps=30, learning_rate=1e18))
    assert not list(tmp_path.rglob("*.*"))


@pytest.mark.parametrize("memory", ["fast", pytest.param("low", marks=pytest.mark.thorough)])
def test_optimise_same_seed_is_bit_identical_in_either_memory_mode(
    memory: str, model: ModelPatcher, clip: comfy.sd.CLIP, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, memory=memory)
    first, second = (run(model, clip, tmp_path / n, settings) for n in "ab")
    other = run(model, clip, tmp_path, replace(settings, seed=1))
    for name, m in first.merged.coefficients.items():
        assert torch.equal(m, second.merged.coefficients[name])
        assert not torch.equal(m, other.merged.coefficients[name])
    assert f"memory={memory}" in first.report


def test_optimise_memory_modes_agree(
    model: ModelPatcher, clip: comfy.sd.CLIP, tmp_path: Path
) -> None:
    fast, low = (
        run(model, clip, tmp_path / m, replace(SETTINGS, steps=2, memory=m))
        for m in ("fast", "low")
    )
    for key in ("content", "style"):
        torch.testing.assert_close(fast.record.history[key], low.record.history[key])


def test_optimise_different_sizes_and_several_latents_run_as_two_passes(
    model: ModelPatcher, clip: comfy.sd.CLIP, tmp_path: Path
) -> None:
    result = run(model, clip, tmp_path, content=latents(3, 16, 8), style=latents(1, 8, 8))
    assert result.record.step == SETTINGS.steps
    assert all(v > 0 for key in ("content", "style") for v in result.record.history[key])


@pytest.mark.parametrize("zsnr", [pytest.param(False, marks=pytest.mark.thorough), True])
def test_optimise_follows_a_v_prediction_model(
    zsnr: bool, clip: comfy.sd.CLIP, tmp_path: Path
) -> None:
    model = tiny.tiny_sdxl("v", zsnr)
    options = TrainingOptions(min_snr_gamma=5.0)
    settings = replace(SETTINGS, steps=60, options=options)
    result = run(model, clip, tmp_path, settings)
    assert retention_ratio(result.report) < 0.8


def test_optimise_leaves_the_persons_model_bit_identical(
    model: ModelPatcher, clip: comfy.sd.CLIP, tmp_path: Path
) -> None:
    before = {k: w.clone() for k, w in model.model.state_dict().items()}
    run(model, clip, tmp_path)
    helpers.assert_untouched(model, before)


def test_optimise_cancelled_resumes_to_the_same_result(
    model: ModelPatcher, clip: comfy.sd.CLIP, tmp_path: Path
) -> None:
    whole = run(model, clip, tmp_path / "whole")

    def cancel(record: TrainingRecord) -> None:
        if record.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(model, clip, tmp_path / "cut", on_step=cancel)
    (kept,) = (tmp_path / "cut").glob("*/lora.safetensors")
    assert merged_from_lora(read_lora(kept)).separable
    resumed = run(model, clip, tmp_path / "cut")
    assert "resumed at 3" in resumed.report
    assert list((tmp_path / "cut").iterdir()) == []  # a finished run needs no checkpoint
    for name, m in whole.merged.coefficients.items():
        assert torch.equal(m, resumed.merged.coefficients[name])


def test_optimise_cancelled_in_the_closing_measurement_keeps_all_steps(
    model: ModelPatcher, clip: comfy.sd.CLIP, tmp_path: Path
) -> None:
    whole = run(model, clip, tmp_path / "whole")

    def cancel_after_the_last(record: TrainingRecord) -> None:
        if record.step == SETTINGS.steps:
            comfy.model_management.interrupt_current_processing(True)

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        run(model, clip, tmp_path / "cut", on_step=cancel_after_the_last)
    resumed = run(model, clip, tmp_path / "cut")
    assert f"resumed at {SETTINGS.steps}" in resumed.report
    for name, m in whole.merged.coefficients.items():
        assert torch.equal(m, resumed.merged.coefficients[name])


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"learning_rate": 0.02}, {"layers": "attention_ff"}, {"similarity": "dot_mean"}],
)
def test_optimise_other_inputs_do_not_resume_a_foreign_checkpoint(
    change: dict[str, Any], model: ModelPatcher, clip: comfy.sd.CLIP, tmp_path: Path
) -> None:
    stops = iter([False, False, True])
    run(model, clip, tmp_path, should_stop=lambda: next(stops))
    result = run(model, clip, tmp_path, replace(SETTINGS, **change))
    assert "resumed" not in result.report


def test_optimise_other_base_weights_do_not_resume_a_foreign_checkpoint(
    model: ModelPatcher, clip: comfy.sd.CLIP, tmp_path: Path
) -> None:
    stops = iter([False, False, True])
    run(model, clip, tmp_path, should_stop=lambda: next(stops))
    patched = helpers.stock(model, (helpers.lora_tensors()[0], 0.5))
    assert "resumed" not in run(patched, clip, tmp_path).report
    assert "resumed at 2" in run(model, clip, tmp_path).report


def test_optimise_stop_keeps_a_usable_merge(
    model: ModelPatcher, clip: comfy.sd.CLIP, tmp_path: Path
) -> None:
    stops = iter([False] * 4 + [True])
    result = run(model, clip, tmp_path, should_stop=lambda: next(stops))
    assert "4 of 6 steps" in result.report and "stopped after step 4 on request" in result.report
    assert any((m != 1).any() for m in result.merged.coefficients.values())


def test_optimise_metadata_says_what_was_done_and_never_when_or_where(
    model: ModelPatcher, clip: comfy.sd.CLIP, tmp_path: Path
) -> None:
    metadata = run(model, clip, tmp_path).merged.metadata
    assert metadata["ziplora.method"] == "ziplora"
    assert metadata["modelspec.prediction_type"] == "epsilon"
    assert '"steps": 6' in metadata["ziplora.settings"]
    assert set(metadata) >= {"ziplora.retention", "ziplora.content", "modelspec.merged_from"}
    assert str(tmp_path) not in str(metadata)


@pytest.mark.parametrize("rank", [0, 5])
def test_direct_merge_equals_the_weighted_sum(rank: int, model: ModelPatcher) -> None:
    pair = helpers.lora_pair(1.0, 0.5)
    merged, report = merge_pair(model.model, pair, "direct", MergeSettings(0.8, -2.0, rank))
    content, style = helpers.lora_tensors()
    assert merged.separable == (rank == 0) and "88 UNet modules, 88 of them in both" in report
    for name, factors in merged.modules().items():
        want = sum(
            weight * float(t[f"{name}.alpha"]) / len(t[f"{name}.lora_down.weight"])
            * t[f"{name}.lora_up.weight"] @ t[f"{name}.lora_down.weight"]
            for weight, t in ((0.8, content), (-1.0, style))
        )  # fmt: skip
        if rank == 0:
            torch.testing.assert_close(factors.delta(), want, rtol=1e-4, atol=1e-5)
        else:
            assert factors.rank == rank


def test_optimise_pair_without_common_modules_is_refused_before_any_training(
    model: ModelPatcher, clip: comfy.sd.CLIP, tmp_path: Path
) -> None:
    pair = helpers.lora_pair()
    half = len(pair.content.modules) // 2
    names = sorted(pair.content.modules)
    content = replace(pair.content, modules={n: pair.content.modules[n] for n in names[:half]})
    style = replace(pair.style, modules={n: pair.style.modules[n] for n in names[half:]})
    with pytest.raises(ZipLoRAError, match="found 0 modules in common"):
        run(model, clip, tmp_path, pair=LoRAPair(content, style))
    merged, _ = merge_pair(model.model, LoRAPair(content, style), "direct", MergeSettings())
    assert len(merged.modules()) == 88


def test_optimise_one_sided_modules_stay_as_they_are(
    model: ModelPatcher, clip: comfy.sd.CLIP, tmp_path: Path
) -> None:
    pair = helpers.lora_pair()
    lost = sorted(pair.style.modules)[:5]
    style = replace(
        pair.style, modules={n: f for n, f in pair.style.modules.items() if n not in lost}
    )
    result = run(model, clip, tmp_path, pair=LoRAPair(pair.content, style))
    assert "5 modules are in one LoRA only" in result.report
    assert not set(lost) & set(result.merged.coefficients)
    joined = join(result.merged.pairs[lost[0]])
    assert joined is not None
    torch.testing.assert_close(joined.delta(), pair.content.modules[lost[0]].delta())
