"""A short quality run: nothing is worse than recorded, and what counts as worse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import pytest
import torch

from quality import record
from quality.experiment import Bench


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    threads = torch.get_num_threads()
    torch.set_num_threads(record.THREADS)
    try:
        yield record.trimmed_bench()
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def measured(bench: Bench) -> record.Measured:
    return record.trimmed_run(bench)


def test_nothing_is_worse_than_recorded(measured: record.Measured) -> None:
    assert not record.missing(record.recorded())
    assert record.worse(measured, record.recorded()) == []


def test_loras_alone_draw_their_subject_and_style(bench: Bench, measured: record.Measured) -> None:
    subject = mean(measured["content LoRA alone"]["subject"])
    style = mean(measured["style LoRA alone"]["style"])
    assert subject >= 0.8 * bench.refs.content.real
    assert style >= 0.8 * bench.refs.style.real


def test_ziplora_keeps_both_loras_better_than_the_direct_merge(measured: record.Measured) -> None:
    errors = {
        method: [mean(measured[method][f"{c}_retention"]) for c in ("content", "style")]
        for method in ("direct", "ZipLoRA")
    }
    assert errors["ZipLoRA"][0] < 0.5 * errors["direct"][0]
    assert errors["ZipLoRA"][1] < errors["direct"][1]
    assert sum(errors["ZipLoRA"]) < 0.5 * sum(errors["direct"])


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
