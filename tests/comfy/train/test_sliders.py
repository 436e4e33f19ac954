"""A slider's whole training on the tiny SDXL: determinism, resume, start LoRA, report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.sd
import comfy.taesd.taesd
import pytest
import torch
from torch import Tensor

from sandbox import tiny
from ziplora_core.comfy_adapter.train.slider_effect import STEPS as SAMPLING
from ziplora_core.comfy_adapter.train.slider_tasks import (
    PictureSliderTask,
    SliderInputs,
    SliderTask,
    TextSliderTask,
    paired_pictures,
)
from ziplora_core.comfy_adapter.train.sliders import SliderResult, train_slider
from ziplora_core.errors import ZipLoRAError
from ziplora_core.files import lora_from_tensors
from ziplora_core.files.writer import lora_model
from ziplora_core.sliders.metadata import SliderUse, slider_use
from ziplora_core.sliders.options import PairSliderSettings, SliderSettings, TextSliderSettings
from ziplora_core.training.interface import ProgressCallbacks, TrainingRecord
from ziplora_core.training.options import TrainingOptions

from .. import helpers

SIDE, STEPS = 64, 4
WORDS = TextSliderSettings(
    target="person", positive="old person", negative="young person", resolution=SIDE, steps=STEPS,
    learning_rate=1e-2, alpha=4.0, trajectory="reused", layers="xattn",
    options=TrainingOptions(sample_every=0),
)  # fmt: skip
PICTURES = PairSliderSettings(
    resolution=SIDE, steps=STEPS, learning_rate=1e-2, alpha=4.0, layers="xattn",
    options=TrainingOptions(sample_every=0),
)  # fmt: skip


class Cancelled(BaseException):
    """Like ComfyUI's own, not an `Exception`."""


def task_of(settings: SliderSettings) -> SliderTask:
    if isinstance(settings, TextSliderSettings):
        return TextSliderTask(settings)
    assert isinstance(settings, PairSliderSettings)
    shown = [helpers.noise(2, SIDE, SIDE, 3, seed=n).clamp(0, 1) for n in (1, 2)]
    levels = [paired_pictures(shown[:1], shown[1:], scale) for scale in (1.0, 2.0)]
    return PictureSliderTask(levels, settings)


def run(
    settings: SliderSettings, folder: Path, start: Any | None = None, **callbacks: Any
) -> SliderResult:
    inputs = SliderInputs(tiny.tiny_sdxl(), tiny.tiny_clip(), tiny.tiny_vae(), start)
    with torch.inference_mode():
        return train_slider(inputs, task_of(settings), folder, ProgressCallbacks(**callbacks))


def flat(result: SliderResult) -> Tensor:
    parts = [t for f in result.modules.values() for t in (f.down, f.up)]
    return torch.cat([part.flatten() for part in parts])


@pytest.mark.thorough
@pytest.mark.parametrize(
    "settings",
    [WORDS, pytest.param(PICTURES, marks=pytest.mark.thorough)],
    ids=["words", "pictures"],
)
def test_same_seed_same_slider_and_cancelled_runs_go_on(
    settings: SliderSettings, tmp_path: Path
) -> None:
    whole = run(settings, tmp_path / "a")
    other = run(replace(settings, seed=1), tmp_path / "a")

    def cancel(record: TrainingRecord) -> None:
        if record.step == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        run(settings, tmp_path / "b", on_step=cancel)
    resumed = run(settings, tmp_path / "b")
    assert resumed.record.resumed_at == 2
    assert torch.equal(flat(resumed), flat(whole)) and not torch.equal(flat(other), flat(whole))
    assert not list((tmp_path / "b").iterdir())


@pytest.mark.thorough
@pytest.mark.parametrize(
    "settings",
    [pytest.param(WORDS, marks=pytest.mark.thorough), PICTURES],
    ids=["words", "pictures"],
)
def test_low_memory_learns_the_same(settings: SliderSettings, tmp_path: Path) -> None:
    fast, low = (run(replace(settings, memory=memory), tmp_path) for memory in ("fast", "low"))
    torch.testing.assert_close(flat(low), flat(fast), rtol=1e-2, atol=1e-4)


def test_whitespace_around_prompts_does_not_count(tmp_path: Path) -> None:
    for settings, names in ((WORDS, ("positive", "negative")), (PICTURES, ("positive", "neutral"))):
        untidy = replace(settings, **dict(zip(names, ("old\n", " young"), strict=True)))
        tidy = replace(settings, **dict(zip(names, ("old", "young"), strict=True)))
        assert task_of(untidy).settings == tidy
    assert "pictures of 'old'" in run(replace(PICTURES, positive="old\n", steps=1), tmp_path).report


def test_model_stays_as_it_was(tmp_path: Path) -> None:
    model, clip = tiny.tiny_sdxl(), tiny.tiny_clip()
    before = {key: weight.clone() for key, weight in model.model.state_dict().items()}
    with torch.inference_mode():
        train_slider(SliderInputs(model, clip), TextSliderTask(WORDS), tmp_path)
    helpers.assert_untouched(model, before)


@pytest.mark.thorough
def test_slider_that_learns_nothing_says_so(tmp_path: Path) -> None:
    still = replace(WORDS, learning_rate=0.0)
    said = run(still, tmp_path).report
    assert said.startswith(
        "WARNING: this slider does nothing yet: from −2 to 2, active from 25% of"
    )


def test_effect_is_that_on_the_first_sample_prompt_and_only_shown(tmp_path: Path) -> None:
    options = TrainingOptions(sample_every=0, sample_prompts="\n a castle \na dog")
    shown = replace(PICTURES, options=options, range=3.0, start_percent=0.0)

    def cancel(record: TrainingRecord) -> None:
        if record.step == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        run(PICTURES, tmp_path, on_step=cancel)
    own = run(shown, tmp_path)  # settings that only affect the display do not change the training
    assert own.record.resumed_at == 2 and own.effect.prompt == "a castle"
    said = "effect: from −3 to 3, active from 0% of the sampling on, pictures of 'a castle'"
    assert said in own.report


@pytest.mark.thorough
def test_warm_start_begins_where_the_other_ended(tmp_path: Path) -> None:
    first = run(WORDS, tmp_path)
    tensors = dict(lora_model(first.modules, first.metadata))
    lora = lora_from_tensors(tensors, name="first")
    again = run(replace(WORDS, learning_rate=0.0, seed=7), tmp_path, start=lora)
    for name, factors in first.modules.items():
        torch.testing.assert_close(again.modules[name].delta(), factors.delta())
    wider = replace(WORDS, learning_rate=0.0, rank=2, layers="xattn_strict")
    text = "lora_te1_text_model_encoder_layers_0_self_attn_q_proj"
    tensors |= {f"{text}.lora_down.weight": torch.ones(2, 32)}
    tensors |= {f"{text}.lora_up.weight": torch.ones(32, 2)}
    started = run(wider, tmp_path, start=lora_from_tensors(tensors, name="first"))
    assert (
        f"starts from first: {len(started.modules)} of {len(first.modules)} modules, rank 4 → 2, "
        "1 text-encoder modules not used"
    ) in started.report
    assert '"start": "first"' in started.metadata["ziplora.slider"]
    with pytest.raises(ZipLoRAError, match="none of them in layers=selfattn"):
        run(replace(WORDS, layers="selfattn"), tmp_path, start=lora)


def test_start_of_another_architecture_is_refused_before_anything_is_encoded(
    tmp_path: Path,
) -> None:
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    tensors = {f"{name}.lora_down.weight": torch.ones(2, 320)}
    tensors[f"{name}.lora_up.weight"] = torch.ones(320, 2)
    start = lora_from_tensors(tensors, name="start_lora")
    said: list[str] = []
    with pytest.raises(
        ZipLoRAError, match=r"^start_lora: found a LoRA for Stable Diffusion 1.*1 of 1 m"
    ):
        run(WORDS, tmp_path, start=start, on_status=said.append)
    assert not said


@pytest.mark.parametrize("settings", [WORDS, PICTURES], ids=["words", "pictures"])
def test_no_steps_are_refused(settings: SliderSettings, tmp_path: Path) -> None:
    with pytest.raises(ZipLoRAError, match="steps: found 0, expected 1 or more"):
        run(replace(settings, steps=0), tmp_path)


@pytest.mark.thorough
def test_file_says_what_the_slider_does_and_how_far(tmp_path: Path) -> None:
    metadata = run(replace(WORDS, range=3.0, start_percent=0.5), tmp_path).metadata
    assert slider_use(metadata) == SliderUse(-3.0, 3.0, 0.5)
    assert '"positive": "old person"' in metadata["ziplora.slider"]
    assert metadata["modelspec.resolution"] == f"{SIDE}x{SIDE}"
    assert str(tmp_path) not in str(metadata)


@pytest.mark.thorough
def test_samples_show_down_off_and_up(tmp_path: Path) -> None:
    shown: list[tuple[int, Sequence[Tensor]]] = []
    named: list[list[str]] = []
    sampling = replace(WORDS, options=TrainingOptions(sample_every=2))
    result = run(
        sampling,
        tmp_path,
        on_samples=lambda step, p, captions: (shown.append((step, p)), named.append(captions)),
    )
    assert [step for step, _ in shown] == [2, STEPS]
    assert named == [["−2", "0", "2"]] * 2
    said = int(result.report.split("UNet evaluations: ")[1].split()[0])
    plain = int(run(WORDS, tmp_path).report.split("UNet evaluations: ")[1].split()[0])
    assert said == plain < 3 * 2 * 3 * SAMPLING  # only the effect draws pictures
    assert all(len(pictures) == 3 and pictures[0].shape == (SIDE, SIDE, 3) for _, pictures in shown)


def test_pairs_that_do_not_match_are_named() -> None:
    one, two = torch.zeros(1, 64, 64, 3), torch.zeros(2, 64, 64, 3)
    wide = torch.zeros(1, 64, 96, 3)
    for low, high, scale, words in (
        ([one], [two], 1.0, "1 low and 2 high pictures"),
        ([one], [wide], 1.0, "pair 1 of 64 × 64 and 96 × 64 pixels"),
        ([one], [one], 0.0, "scale: found 0"),
    ):
        with pytest.raises(ZipLoRAError, match=words):
            paired_pictures(low, high, scale)


def test_pairs_of_two_shapes_keep_them_in_one_training(tmp_path: Path) -> None:
    sizes = ((64, 64), (48, 96))
    low, high = [[helpers.noise(1, *size, 3, seed=n).clamp(0, 1) for size in sizes] for n in (0, 1)]
    settings = replace(PICTURES, options=TrainingOptions(batch=4, sample_every=0))
    task = PictureSliderTask([paired_pictures(low, high, 1.0)], settings)
    inputs = SliderInputs(tiny.tiny_sdxl(), tiny.tiny_clip(), tiny.tiny_vae())
    with torch.inference_mode():
        result = train_slider(inputs, task, tmp_path)
    square, wide = task.pairs
    for pair, size in ((square, sizes[0]), (wide, sizes[1])):
        assert pair.low.frame == pair.high.frame and pair.low.frame.original == size
        assert pair.low.mean.shape[1:] == tuple(side // 8 for side in pair.low.frame.target)
    assert square.low.frame.target == (SIDE, SIDE)
    assert wide.low.frame.target[1] > wide.low.frame.target[0]
    assert result.record.step == STEPS


def test_vae_of_another_kind_is_refused_before_anything_is_encoded(tmp_path: Path) -> None:
    other = comfy.sd.VAE(sd=comfy.taesd.taesd.TAESD(latent_channels=16).state_dict())
    inputs = SliderInputs(tiny.tiny_sdxl(), tiny.tiny_clip(), other)
    for settings in (WORDS, PICTURES):
        with pytest.raises(
            ZipLoRAError, match="vae: found a VAE of 16 latent channels, expected 4"
        ):
            train_slider(inputs, task_of(settings), tmp_path)


def test_number_below_what_the_widget_allows_is_refused(tmp_path: Path) -> None:
    for name, value in (("steps", 0), ("rank", 0), ("resolution", 8), ("range", 0.0)):
        with pytest.raises(ZipLoRAError, match=f"{name}: found 0|{name}: found 8"):
            run(replace(WORDS, **{name: value}), tmp_path)


def test_prompts_without_two_ends_are_refused() -> None:
    for positive, negative in (("", ""), ("person", "person")):
        with pytest.raises(ZipLoRAError, match="positive and negative"):
            TextSliderTask(TextSliderSettings(target="", positive=positive, negative=negative))
