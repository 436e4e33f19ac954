"""The benchmark's contenders compute the same losses and coefficients, some in less memory."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from ...bench import clock, document
from ...bench.engine import closed_form, merges, steps
from ...bench.engine.models import SIZES
from ...bench.engine.task import open_task
from ...bench.sliders import tables as sliders
from ...bench.table import Table
from ...bench.unziplora import tables as unziplora
from ...bench.unziplora.task import open_task as open_unziplora


@pytest.fixture(scope="module")
def tables() -> tuple[Table, Table]:
    """Measure steps and closed form of the tiny SDXL, with few samples."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "SHORTEST", 0)
        patch.setattr(closed_form, "STATES", (2,))
        patch.setattr(closed_form, "SAMPLED", 1)
        with open_task(replace(SIZES["tiny"], rank=4)) as task:
            return steps.table(task, rounds=1), closed_form.table(task)


@pytest.fixture(scope="module")
def step_costs(tables: tuple[Table, Table]) -> Table:
    return tables[0]


def assert_complete(table: Table, rows: set[str]) -> None:
    """Assert that every row exists and that every figure is positive and finite."""
    assert set(table.rows) == rows
    for row in table.rows.values():
        assert all(math.isfinite(row[column]) and row[column] >= 0 for column in table.columns)


@pytest.mark.thorough
def test_steps_every_row_is_there_and_finite(step_costs: Table) -> None:
    ours = {steps.FAST, steps.ASKED, steps.LOW}
    assert_complete(step_costs, {steps.BASE, *ours, steps.CHECKPOINTED, steps.PLAIN})
    assert step_costs.rows[steps.BASE]["units"] == 2


@pytest.mark.thorough
def test_steps_the_public_arithmetic_has_our_losses_at_first(step_costs: Table) -> None:
    assert step_costs.facts["losses apart"] < 1e-4


def test_steps_all_modes_learn_the_same(step_costs: Table) -> None:
    assert step_costs.facts["coefficients moved"] > 0.005
    assert step_costs.facts["gradients apart"] < 1e-4
    assert step_costs.facts["coefficients apart"] < 1e-4


def test_steps_low_holds_a_third_of_what_fast_holds(step_costs: Table) -> None:
    assert step_costs.rows[steps.LOW]["of fast"] <= 0.35


def test_closed_form_every_row_is_there_and_finite(tables: tuple[Table, Table]) -> None:
    assert_complete(
        tables[1],
        {"100 steps", "32 + 32 teacher targets", "closed form, 2 + 2 states"},
    )


@pytest.mark.thorough
def test_merges_every_row_is_there_and_finite() -> None:
    merged, saved = merges.tables(rank=2, methods=("direct", "rank_space"))
    assert_complete(merged, {"direct", "rank_space"})
    assert saved.rows["SaveMergedLoRA"]["seconds"] > 0 < saved.facts["file bytes"]


@pytest.mark.thorough
def test_sliders_evaluations_are_counted_and_losses_are_the_public_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clock, "SHORTEST", 0)
    monkeypatch.setitem(sliders.LATENTS, "tiny", 8)
    (table,) = sliders.tables(["tiny"], rounds=1)
    ours = {sliders.EXACT: 55, sliders.PAIR: 4, sliders.PAIR_LOW: 6}
    public = {sliders.PUBLIC: 60, sliders.PUBLIC_PAIR: 12}
    counted = {name: row["evaluations"] for name, row in table.rows.items()}
    reused = counted.pop(sliders.REUSED)
    assert counted == {sliders.BASE: 2, **ours, **public}
    assert reused is not None and 3 * reused <= 55
    assert table.facts["exact evaluations"] == pytest.approx(55, rel=0.02)
    assert 3 * table.facts["reused evaluations"] <= table.facts["exact evaluations"]
    assert table.facts["losses apart"] < 1e-4


@pytest.fixture(scope="module")
def unziplora_costs() -> Table:
    """Measure a step of UnZipLoRA on the tiny SDXL."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "SHORTEST", 0)
        with open_unziplora(replace(SIZES["tiny"], rank=4)) as task:
            return unziplora.table(task, rounds=1)


def test_unziplora_every_row_is_there_and_finite(unziplora_costs: Table) -> None:
    assert set(unziplora_costs.rows) == {
        unziplora.BASE,
        unziplora.OURS,
        unziplora.LOW,
        unziplora.DENSE,
    }
    figures = [v for row in unziplora_costs.rows.values() for v in row.values() if v is not None]
    assert all(math.isfinite(value) and value > 0 for value in figures)


def test_unziplora_keeps_less_than_two_fifths_of_the_dense_path(unziplora_costs: Table) -> None:
    assert unziplora_costs.rows[unziplora.OURS]["kept, of dense"] <= 0.4


def test_document_a_section_takes_its_own_place_only(tmp_path: Path) -> None:
    shutil.copy(document.DOCS / document.DOCUMENT, tmp_path)
    write = partial(document.write, minutes=1, docs=tmp_path)
    table = Table("a table", {"seconds": ".1f"}, {"ours": {"seconds": 1.25}, "none": {}})
    write("default", "steps", [table])
    write("default", "sliders", [replace(table, title="another")])
    write("full", "steps", [replace(table, title="a third")])
    write("default", "steps", [replace(table, title="the first")])
    written = (tmp_path / document.DOCUMENT).read_text(encoding="utf-8")
    assert "| ours |     1.2 |" in written and "| none |       – |" in written
    places = [written.index(f"### {title}") for title in ("the first", "another", "a third")]
    assert places == sorted(places) and "### a table" not in written
    assert "### Closed form" in written  # it belongs to another section
    runs = json.loads((tmp_path / document.FIGURES).read_text())
    measured = runs["default"]["steps"]["tables"]
    assert (
        list(measured) == ["the first"] and measured["the first"]["rows"]["ours"]["seconds"] == 1.25
    )
    assert set(runs) == {"default", "full"} and set(runs["default"]) == {"steps", "sliders"}


def test_document_places_have_ends_and_figures() -> None:
    text = (document.DOCS / document.DOCUMENT).read_text(encoding="utf-8")
    places = re.findall(r"^<!-- ((?:default|full|card) \w+) -->$", text, re.MULTILINE)
    assert re.findall(r"^<!-- end of (.*) -->$", text, re.MULTILINE) == places
    measured = json.loads((document.DOCS / document.FIGURES).read_text())["default"]
    assert [f"default {section}" for section in measured] == places[: len(measured)]
    for section in measured.values():
        assert all(f"### {title}\n" in text for title in section["tables"])
