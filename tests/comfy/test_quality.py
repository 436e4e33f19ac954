"""The record of the quality run: what counts as worse."""

from __future__ import annotations

import pytest

from quality import record


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
