"""The quality run, trimmed: nothing got worse than recorded. And what counts as worse."""

from __future__ import annotations

from statistics import mean

import pytest

from miniworld.parts import load_parts
from miniworld.probe_files import load_probes
from quality import record
from quality.experiment import Bench, make_bench
from quality.subjects import PAIRS


@pytest.fixture(scope="module")
def bench() -> Bench:
    return make_bench(load_parts(), PAIRS[record.PAIR], load_probes())


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


def test_missing_names_methods_without_figures() -> None:
    assert record.missing({"direct": {}}) == set(record.METHODS) - {"direct"}
