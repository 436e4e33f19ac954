"""The search for the best strengths of a merge on the tiny SDXL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import comfy.model_management
import comfy.sd
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from sandbox import tiny
from sandbox.tiny_pack.vision import tiny_vision
from ziplora_core.comfy_adapter.apply.guidance import with_negative_strength
from ziplora_core.comfy_adapter.apply.lora import apply_lora
from ziplora_core.comfy_adapter.apply.sweep import Sampling, draw_picture
from ziplora_core.comfy_adapter.model.memory_advice import unload_all_models
from ziplora_core.comfy_adapter.model.pair_on_model import pair_on_model
from ziplora_core.comfy_adapter.tools.feature_scorer import FeatureScorer
from ziplora_core.comfy_adapter.tools.find_inputs import FindInputs, halves_of
from ziplora_core.comfy_adapter.tools.find_merge import (
    CALIBRATION_PICTURES,
    DRAWS,
    Found,
    find_merge,
)
from ziplora_core.comfy_adapter.tools.scorers import LoRAScorer, draw_calibration
from ziplora_core.comfy_adapter.tools.scores import ScoreInputs
from ziplora_core.errors import ZipLoRAError
from ziplora_core.lora.merged import MergedLoRA, truncated
from ziplora_core.merging.strengths import BASELINE, parse_strengths, write_strengths
from ziplora_core.plots.found import found_rows, sheet
from ziplora_core.training.interface import NO_CALLBACKS, ProgressCallbacks, TrainingRecord

from .. import helpers

SIDE = 64
PROMPT = "a sks dog in watercolor style"
FOUR = parse_strengths("0.3/1, 1/0.3, 0.6/0.6")
PICTURES = 4 * 1 + 2 * 2
"""The two rounds of a budget of 8."""


def direct(model: ModelPatcher, **halves: float) -> MergedLoRA:
    unet, text = pair_on_model(helpers.lora_pair(**halves), model.model)
    return MergedLoRA(unet, text_encoder=text, metadata={"ziplora.method": "direct"})


def sampling(clip: comfy.sd.CLIP, **settings: Any) -> Sampling:
    return Sampling(
        **{
            "positive": helpers.encode(clip, PROMPT), "negative": helpers.encode(clip, "blurry"),
            "latent": {"samples": torch.zeros(2, 4, SIDE // 8, SIDE // 8)}, "seed": 3, "steps": 2,
            "cfg": 2.0, "sampler_name": "euler", "scheduler": "normal", **settings,
        }
    )  # fmt: skip


def inputs_of(model: ModelPatcher, clip: comfy.sd.CLIP, **changed: Any) -> FindInputs:
    how = {"strengths": FOUR, "pictures": 8, "sampling": sampling(clip)} | changed
    merges = how.pop("merges", None) or {"merged": direct(model)}
    return FindInputs(merges, **how)


def found(
    model: ModelPatcher, inputs: FindInputs, callbacks: ProgressCallbacks = NO_CALLBACKS
) -> Found:
    with torch.inference_mode():
        return find_merge(model, tiny.tiny_vae(), inputs, callbacks)


def as_bytes(pictures: Sequence[Tensor]) -> Tensor:
    return (255 * torch.stack(list(pictures))).round().byte()


@pytest.mark.parametrize("negative", [0.0, pytest.param(1.0, marks=pytest.mark.thorough)])
def test_pictures_are_the_samplers_and_scores_are_the_scorers(
    model: ModelPatcher, clip: comfy.sd.CLIP, negative: float
) -> None:
    before = {key: weight.clone() for key, weight in model.model.state_dict().items()}
    inputs = inputs_of(model, clip, negative_strength=negative)
    result = found(model, inputs)
    rows = result.merges.rows
    assert sorted(len(row.trial.scores) for row in rows) == [1, 1, 3, 3]
    assert len(rows[0].trial.scores) == 3 and {row.strengths for row in rows} == set(FOUR)
    others = [row.trial.mean for row in rows[1:]]
    assert others == sorted(others, reverse=True)
    merged, how = inputs.merges["merged"], inputs.sampling
    pictures: list[Tensor] = []
    for row in rows:
        modules = {n: f for n, f in merged.modules(*row.strengths).items() if n in merged.pairs}
        with torch.inference_mode():
            patched = (
                apply_lora(modules, "", model, None)
                if negative == 1
                else with_negative_strength(model, modules, "", negative)
            )[0]
            drawn = [
                draw_picture(patched, tiny.tiny_vae(), replace(how, seed=3 + n))
                for n in range(len(row.trial.scores))
            ]
        assert torch.equal(row.pictures, as_bytes(drawn))
        pictures += drawn
        folded = row.merged.modules()
        assert all(
            torch.allclose(folded[n].delta(), f.delta(), atol=1e-6) for n, f in modules.items()
        )
    with torch.inference_mode():
        vae, (pairs, _) = tiny.tiny_vae(), pair_on_model(halves_of(merged), model.model)
        drawn = draw_calibration(model, vae, pairs, how, CALIBRATION_PICTURES)
        features = FeatureScorer(model, vae, how, drawn, "try another seed")
        by_loras = LoRAScorer(model, vae, pairs, how, drawn, DRAWS, "try another seed")
        scorer = features if features.calibrate() else by_loras
        judged = scorer.score(pictures)
    for score, wanted in zip([s for r in rows for s in r.trial.scores], judged, strict=True):
        assert [score.subject, score.style] == pytest.approx(
            [wanted.subject, wanted.style], abs=1e-4
        )
    unload_all_models()
    helpers.assert_untouched(model, before)
    assert f"merged: best at {rows[0].strengths[0]:g} / {rows[0].strengths[1]:g}" in result.report
    assert "8 pictures drawn, 4 × 1, then 2 × 2; seeds from 3" in result.report
    assert "UNet evaluations: about 32 for these, and 48 for 12 pictures of the" in result.report
    assert scorer.describe()[0] in result.report


@pytest.mark.thorough
def test_found_is_deterministic_and_no_less_than_the_merge_as_it_is(
    model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    first, second, other = (
        found(model, inputs_of(model, clip, sampling=sampling(clip, seed=seed))).merges
        for seed in (5, 5, 6)
    )
    assert found_rows(first) == found_rows(second) != found_rows(other)
    (as_it_is,) = (row for row in first.rows if row.strengths == BASELINE)
    assert len(as_it_is.trial.scores) == len(first.rows[0].trial.scores)
    assert first.rows[0].trial.mean >= as_it_is.trial.mean
    assert first.rows[0].merged.metadata["ziplora.strengths"] == "{:g} / {:g}".format(
        *first.rows[0].strengths
    )
    heading, *rows = found_rows(first)
    assert heading[0] == "kind" and [row[-1] for row in rows] == ["1", "2", "3", "4"]
    assert sorted(first.shuffled()) == [1, 2, 3, 4] and first.shuffled() == second.shuffled()
    assert first.chosen(0) is first.chosen(1) is first.rows[0]
    for choice in (5, -1):
        with pytest.raises(ZipLoRAError, match=f"choice: found {choice}, .* from 1 to 4"):
            first.chosen(choice)


class Watched:
    """The callbacks of a node, which ask to stop after some pictures."""

    def __init__(self, stop_after: int = 10**9) -> None:
        self.stop_after = stop_after
        self.steps: list[int] = []
        self.prepared: list[tuple[int, int]] = []
        self.samples: list[tuple[int, int, Sequence[str]]] = []
        self.said: list[str] = []
        self.callbacks = ProgressCallbacks(
            on_step=self._step,
            should_stop=lambda: bool(self.steps) and self.steps[-1] >= self.stop_after,
            on_prepare=lambda done, total: self.prepared.append((done, total)),
            on_samples=lambda step, p, captions: self.samples.append((step, len(p), captions)),
            on_status=self.said.append,
        )

    def _step(self, record: TrainingRecord) -> None:
        self.steps.append(record.step)


@pytest.mark.thorough
def test_search_can_be_followed(model: ModelPatcher, clip: comfy.sd.CLIP) -> None:
    watched = Watched()
    inputs = inputs_of(model, clip)
    found(model, inputs, watched.callbacks)
    assert watched.steps == list(range(1, PICTURES + 1)) and inputs.planned == PICTURES
    assert watched.prepared[0] == (0, 48) and watched.prepared[-1] == (48, 48)
    assert [(step, count) for step, count, _ in watched.samples] == [(4, 4), (8, 4)]
    for _, _, captions in watched.samples:
        assert sorted(captions) == sorted(map(write_strengths, inputs.strengths))
    assert all(said.startswith("merged, best first: ") for said in watched.said)


@pytest.mark.parametrize(
    ("stop_after", "drawn"), [(0, 1), (2, 2), pytest.param(6, 6, marks=pytest.mark.thorough)]
)
def test_stop_gives_the_best_so_far(
    model: ModelPatcher, clip: comfy.sd.CLIP, stop_after: int, drawn: int
) -> None:
    watched = Watched(stop_after)
    both = {"merged": direct(model), "other_merged": direct(model)}
    inputs = inputs_of(model, clip, merges=both, pictures=16)
    result = found(model, inputs, watched.callbacks)
    rows = result.merges.rows
    assert sum(len(row.trial.scores) for row in rows) == drawn
    most = max(len(row.trial.scores) for row in rows)
    among = [row.trial for row in rows if len(row.trial.scores) == most]
    assert rows[0].trial.mean == max(trial.mean for trial in among)
    assert BASELINE in {trial.strengths for trial in among}
    assert f"stopped after {drawn} of 16 pictures" in result.report
    assert sheet(result.merges).ndim == 3


@pytest.mark.thorough
def test_search_ends_when_its_time_is_over(model: ModelPatcher, clip: comfy.sd.CLIP) -> None:
    result = found(model, inputs_of(model, clip, minutes=1e-9))
    (row,) = result.merges.rows
    assert row.strengths == BASELINE and len(row.trial.scores) == 1
    assert "the time was over after 1 of 8 pictures" in result.report


def test_cancel_ends_at_once_and_leaves_the_model_clean(
    model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    before = {key: weight.clone() for key, weight in model.model.state_dict().items()}

    def cancel(record: TrainingRecord) -> None:
        if record.step == 4:
            comfy.model_management.interrupt_current_processing()

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        found(model, inputs_of(model, clip), ProgressCallbacks(on_step=cancel))
    unload_all_models()
    helpers.assert_untouched(model, before)


@pytest.mark.thorough
def test_other_kind_is_searched_on_its_own_and_stands_beside(
    model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    both = {"merged": direct(model, content_strength=0.2), "other_merged": direct(model)}
    result = found(model, inputs_of(model, clip, merges=both, pictures=16))
    kinds = [row.kind for row in result.merges.rows]
    assert kinds == ["merged"] * 4 + ["other_merged"] * 4
    assert "merged is chosen whatever other_merged scores" in result.report
    assert result.merges.labels()[4].startswith("5: other_merged ")
    drawn = sheet(result.merges)
    assert drawn.shape[0] > 8 * SIDE and drawn.shape[1] > 3 * SIDE


def references(model: ModelPatcher, clip: comfy.sd.CLIP) -> dict[str, list[Tensor]]:
    """Pictures that each LoRA alone draws, at the strengths of the merge."""
    content, style = (helpers.stock(model, (t, 1.0)) for t in helpers.lora_tensors())
    with torch.inference_mode():
        return {
            name: [
                draw_picture(patched, tiny.tiny_vae(), sampling(clip, seed=seed))
                for seed in range(3, 7)
            ]
            for name, patched in (("subject_images", content), ("style_images", style))
        }


@pytest.mark.thorough
def test_encoders_judge_when_both_are_given_and_choose_between_kinds(
    model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    pictures = references(model, clip)
    encoders = {"clip_vision": tiny_vision("clip_vision"), "dino": tiny_vision("dinov2")}
    weak = MergedLoRA(direct(model).at(0.05, 0.05).pairs)
    merges = {"merged": direct(model), "other_merged": weak}
    swapped = {"merged": direct(model), "other_merged": direct(model)}
    compared = ScoreInputs((), **pictures, **encoders)
    for kinds in (merges, swapped):
        how = sampling(clip, steps=4)
        inputs = inputs_of(
            model, clip, merges=kinds, pictures=16, references=compared, sampling=how
        )
        result = found(model, inputs)
        rows = result.merges.rows
        best = {row.kind: row for row in reversed(rows)}
        assert rows[0].trial.mean == max(row.trial.mean for row in best.values())
        assert "judged by image encoders: subject by DINOv2" in result.report
        assert "is chosen whatever" not in result.report
    one = replace(compared, dino=None, subject_images=())
    report = found(model, inputs_of(model, clip, references=one)).report
    assert "the image encoder is not used" in report and "judged by the" in report


def test_bad_input_is_refused_by_name_before_anything_is_drawn(
    model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    whole = direct(model)
    lower, _ = truncated(whole, 2)
    no_style = MergedLoRA({n: replace(p, style=None) for n, p in whole.pairs.items()})
    encoder = {"clip_vision": tiny_vision("clip_vision")}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"merges": {"merged": lower}}, "merged: found a merge in which content and style are one"),
        (
            {"merges": {"merged": whole, "other_merged": lower}},
            "other_merged: found a merge in which content and style are one LoRA",
        ),
        (
            {"merges": {"merged": replace(whole, prompt_separated=True)}},
            "merged: found a merge from UnZipLoRA",
        ),
        ({"pictures": 0}, "pictures: found 0 for 4 pairs of strengths"),
        (
            {"merges": {"merged": whole, "other_merged": whole}, "pictures": 7},
            "pictures: found 3 for 4 pairs of strengths",
        ),
        ({"merges": {"merged": no_style}}, "the merge's style: found no UNet modules"),
        (
            {"references": ScoreInputs((), **encoder)},
            "style_images: found nothing, with clip_vision given",
        ),
        (
            {"references": ScoreInputs((), subject_images=[torch.rand(32, 32, 3)])},
            "dino: found nothing, with subject_images given",
        ),
        ({"sampling": sampling(clip, positive=[])}, "positive: found 0 entries"),
        ({"sampling": sampling(clip, negative=[])}, "negative: found no prompt"),
    ]

    def never(done: int, total: int) -> None:
        raise AssertionError("it has begun to draw")

    for given, words in cases:
        with pytest.raises(ZipLoRAError) as error:
            found(model, inputs_of(model, clip, **given), ProgressCallbacks(on_prepare=never))
        assert words in str(error.value)
