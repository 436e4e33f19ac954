"""A short quality run: nothing is worse than recorded, and what counts as worse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import pytest
import torch

from miniworld.parts import GUIDANCE, STEPS
from miniworld.scenes import Scene, render
from miniworld.styles import Style
from quality import cache, record
from quality.conditions import AS_MADE, CONDITIONS, Condition
from quality.experiment import Bench
from quality.methods import DIRECT
from quality.subjects import JOINT_PROMPT
from ziplora_core.comfy_adapter.apply.sweep import Sampling
from ziplora_core.comfy_adapter.tools.judge import JudgeInputs, judge
from ziplora_core.files.writer import kohya_tensors


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    threads = torch.get_num_threads()
    torch.set_num_threads(record.THREADS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "FOLDER", tmp_path_factory.mktemp("quality"))  # nothing made before
        try:
            yield record.trimmed_bench()
        finally:
            torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def measured(bench: Bench) -> record.Measured:
    return record.trimmed_run(bench, record.SEEDS[:1])


@pytest.mark.thorough
def test_nothing_is_worse_than_recorded(measured: record.Measured) -> None:
    assert not record.missing(record.recorded())
    assert record.worse(measured, record.recorded()) == []


@pytest.mark.thorough
def test_loras_alone_draw_their_subject_and_style(bench: Bench, measured: record.Measured) -> None:
    subject = mean(measured["content LoRA alone"]["subject"])
    style = mean(measured["style LoRA alone"]["style"])
    assert subject >= 0.8 * bench.refs.content.real
    assert style >= 0.8 * bench.refs.style.real


@pytest.mark.thorough
def test_ziplora_keeps_both_loras_better_than_the_direct_merge(measured: record.Measured) -> None:
    errors = {
        method: [mean(measured[method][f"{c}_retention"]) for c in ("content", "style")]
        for method in ("direct", "ZipLoRA")
    }
    assert errors["ZipLoRA"][0] < 0.5 * errors["direct"][0]
    assert errors["ZipLoRA"][1] < errors["direct"][1]
    assert sum(errors["ZipLoRA"]) < 0.5 * sum(errors["direct"])


@pytest.mark.thorough
def test_judge_orders_base_and_lora_weak_and_full_wrong_and_right(bench: Bench) -> None:
    task, seen = bench.task, Style("sunset", "plain")
    content, style = (
        task.parts.with_lora(kohya_tensors(lora.modules))
        for lora in (task.loras.content, task.loras.style)
    )
    full, half = CONDITIONS[AS_MADE], Condition(content=0.5, style=0.5)
    pictures = {
        "base": bench.draw(task.parts.model, "joint", 9),
        "content": bench.draw(content, "joint", 9),
        "style": bench.draw(style, "joint", 9),
        **{
            name: bench.joint(DIRECT, condition)["pictures"][:4] / 255
            for name, condition in (("full", full), ("half", half))
        },
        "right": render(Scene(task.pair.subject, seen))[None],
        "wrong": render(Scene("hourglass", seen))[None],
    }
    sampling = Sampling(
        positive=task.parts.encode(JOINT_PROMPT), negative=task.parts.encode(""), latent=None,
        seed=1, steps=STEPS, cfg=GUIDANCE, sampler_name="euler", scheduler="normal",
    )  # fmt: skip
    shown = torch.cat(list(pictures.values())).movedim(1, -1)
    with torch.inference_mode():
        inputs = JudgeInputs(list(shown), task.loras, sampling)
        judged = iter(judge(task.parts.model, task.parts.vae, inputs).pictures)
    scores = {name: [next(judged) for _ in shown] for name, shown in pictures.items()}
    subject, of_style = (
        {name: mean(getattr(score, side) for score in row) for name, row in scores.items()}
        for side in ("subject", "style")
    )
    for side, alone in ((subject, "content"), (of_style, "style")):
        assert side["base"] < 0.3 and side[alone] > 0.7
        assert side["half"] < side["full"] - 0.1
    assert subject["wrong"] < subject["right"] - 0.2


@pytest.mark.parametrize(("figure", "change"), [("subject", -0.2), ("content_retention", 0.06)])
def test_worse_names_what_got_worse(figure: str, change: float) -> None:
    before = {"direct": {figure: [0.5, 0.5, 0.51]}}
    now = {"direct": {figure: [value + change for value in before["direct"][figure]]}}
    assert record.worse(before, before) == []
    (line,) = record.worse(now, before)
    assert "direct" in line and figure in line


@pytest.mark.parametrize(("figure", "change"), [("subject", 0.2), ("content_retention", -0.2)])
def test_worse_lets_better_figures_pass(figure: str, change: float) -> None:
    before = {"direct": {figure: [0.5, 0.5, 0.51]}}
    now = {"direct": {figure: [value + change for value in before["direct"][figure]]}}
    assert record.worse(now, before) == []


def test_worse_allows_three_sigma_where_that_is_more_than_a_tenth() -> None:
    before = {"direct": {"subject": [0.3, 0.5, 0.7]}}
    now = {"direct": {"subject": [0.1, 0.3, 0.5]}}
    assert record.worse(now, before) == []


def test_not_a_number_is_worse() -> None:
    before = {"direct": {"subject": [0.5, 0.5, 0.5]}}
    assert record.worse({"direct": {"subject": [float("nan")] * 3}}, before)


def test_missing_names_what_has_no_figures() -> None:
    before = record.recorded()
    assert record.missing({**before, "style LoRA alone": {}}) == {"style LoRA alone, style"}
    assert len(record.missing({})) == sum(map(len, record.METHODS.values()))


def test_worse_figures_are_recorded_only_if_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "RECORD", tmp_path / "recorded.json")
    good, bad = ({"direct": {"subject": [value] * 3}} for value in (0.5, 0.1))
    assert record.keep(good, accept=False) == []
    assert len(record.keep(bad, accept=False)) == 1 and record.recorded() == good
    assert len(record.keep(bad, accept=True)) == 1 and record.recorded() == bad
