"""The benchmark's cells: kept by their inputs, and turned into rows of tables."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from miniworld.parts import STEPS
from quality import cache, document, halves, halves_tables, search
from quality.benchmark import CHANGED, SEEDED, PairResult
from quality.cache import State
from quality.conditions import AS_MADE, CONDITIONS
from quality.halves_cells import Halves
from quality.methods import CLOSED_FORM, DIRECT, TAUGHT
from quality.subjects import TUNING
from quality.table import BEST, best_strengths, condition_rows, rows
from ziplora_core.merging.strengths import Strengths
from ziplora_core.plots.judge import Judged

OTHER = "both at 0.8"


def cell(*sums: float) -> State:
    """Make a joint cell whose pictures have these sums of both."""
    half = [value / 2 for value in sums]
    count = len(sums)
    return {"subject": half, "style": half, "both right": [1.0] * count, "overlap": [0.8] * count,
            "pictures": torch.zeros(count, 3, 8, 8, dtype=torch.uint8)}  # fmt: skip


def result(n: int, better: float, seed: int = 0) -> PairResult:
    """Make a pair on which the other methods are better than the direct merge by so much."""
    made = PairResult(TUNING[n], seed, {"subject": 0.9, "style": 0.98})
    for method in CHANGED:
        gain = 0.0 if method == DIRECT else better
        joint = cell(1.0 + gain, 1.2 + gain)
        made.joint[method] = {AS_MADE: joint, OTHER: cell(1.0 + 2 * gain, 1.2 + 2 * gain)}
        made.alone[method] = {
            "subject": [0.8, 0.9], "style": [0.7, 0.9], "retention": [0.5 + gain, 0.2],
            "seconds": 2.0, "pictures": {},
        }  # fmt: skip
    made.strengths = {"1 / 1": made.joint[DIRECT][AS_MADE], "0.8 / 1": cell(0.9, 1.5)}
    return made


def test_rows_have_means_differences_and_errors_relative_to_the_direct_merge() -> None:
    table = rows([result(0, 0.1), result(1, 0.3)])
    assert list(table)[:2] == [DIRECT, BEST]
    assert table[DIRECT]["both"] == pytest.approx(1.1)
    assert table[CLOSED_FORM]["both"] == pytest.approx(1.3)
    assert str(table[CLOSED_FORM]["difference"]).startswith("+0.20 [")
    assert table[CLOSED_FORM]["content error"] == pytest.approx((0.6 / 0.5 + 0.8 / 0.5) / 2)
    assert table[DIRECT]["difference"] is None and table[DIRECT]["both right"] == 1


def test_rows_of_the_halves_compare_with_the_direct_merge_and_name_the_worst_pair() -> None:
    def cells(direct: float, ours: float) -> halves.Cells:
        names = [f"{m}, {h}" for m, choices in halves.DRAWN.items() for h in choices]
        names += [f"{method}: {c}" for method in halves.COMPARED for c in CONDITIONS]
        theirs = [DIRECT, BEST, *(f"{DIRECT}: {c}" for c in CONDITIONS)]
        made = {name: cell(ours, ours) for name in names}
        made |= {name: cell(direct, direct) for name in theirs}
        made[DIRECT] |= {"retention": [0.5, 0.2]}
        made[f"{TAUGHT}, {Halves()}"] |= {"retention": [ours / 10, 0.1]}
        return made

    found = [cells(1.0, 1.4), cells(1.2, 1.1)]
    table = halves_tables.rows(found, halves.DRAWN)
    taught = table[f"{TAUGHT}, {Halves()}"]
    assert (taught["content error"], taught["style error"]) == ("0.25 (0.28)", "0.50 (0.50)")
    row = table[f"{DIRECT}, {halves.LOWERED}"]
    assert row["both"] == pytest.approx(1.25) and row["worst"] == "-0.10"
    assert str(row["difference"]).startswith("+0.15 [") and row["best"] == row["difference"]
    changed = halves_tables.changed(found)["CFG 5"]
    ours = f"{DIRECT}, {halves.LOWERED}"
    assert changed[ours] == pytest.approx(1.25) and changed["direct"] == pytest.approx(1.1)
    assert changed[f"{ours}, worst"] == "-0.10" and changed["direct, right"] == 1


def test_best_strengths_are_chosen_by_the_pictures_that_do_not_count() -> None:
    cells = {"a": cell(1.0, 0.0, 1.0, 0.0), "b": cell(0.0, 1.5, 0.0, 1.5)}
    # b's second and fourth are best, so its first and third count; and the other way round
    assert best_strengths(cells)["subject"] == [0.0, 0.0, 0.0, 0.0]
    same = {"a": cell(1.0, 1.0), "b": cell(0.5, 0.5)}
    assert best_strengths(same)["style"] == [0.5, 0.5]


def test_conditions_are_compared_with_the_direct_merge_under_the_same() -> None:
    table = condition_rows([result(0, 0.1), result(1, 0.1)], CHANGED)
    assert table[OTHER][f"{CLOSED_FORM}, difference"] == "+0.20 [+0.20, +0.20]"
    assert table[AS_MADE][f"{CLOSED_FORM}, difference"] == "+0.10 [+0.10, +0.10]"
    assert f"{DIRECT}, difference" not in table[OTHER]


def test_other_seeds_give_the_spread_of_a_pair() -> None:
    table = document.seed_rows([result(0, 0.1), result(0, 0.3, seed=1), result(1, 0.1)])
    (name,) = table
    assert name == TUNING[0].name and table[name][CLOSED_FORM] == "1.20, 1.40"
    assert [table[name][f"{m}, spread"] for m in SEEDED] == pytest.approx([0, 0.02**0.5])


def test_what_was_made_of_the_same_inputs_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "FOLDER", tmp_path)
    made: list[float] = []

    def keep(value: float) -> State:
        inputs = {"tensor": torch.tensor([value]), "name": "x"}
        return cache.cached("kind", inputs, lambda: made.append(value) or {"value": value})

    assert [keep(1.0), keep(1.0), keep(2.0)] == [{"value": 1.0}, {"value": 1.0}, {"value": 2.0}]
    assert made == [1.0, 2.0]
    for file in (tmp_path / "kind").iterdir():
        file.write_bytes(file.read_bytes()[:40])  # of a run that was killed
    assert keep(2.0) == {"value": 2.0} and made == [1.0, 2.0, 2.0]


def test_code_of_a_path_without_files_is_an_error() -> None:
    assert cache.code("tests/quality/cache.py") != cache.code("tests/quality")
    with pytest.raises(FileNotFoundError):
        cache.code("tests/quality/no_such_module.py")


def test_a_document_without_a_place_stops_the_run_before_it_begins() -> None:
    document.require(["tuning", "judge ranks"])
    with pytest.raises(SystemExit, match="found 0 places for no such table"):
        document.require(["no such table"])


def test_a_search_takes_what_the_scores_say_and_is_held_against_the_probes() -> None:
    def searched(pair: int, best: Strengths) -> search.Searched:
        cells = {at: cell(*[1.5 if at == best else 1.0] * 8) for at in search.CANDIDATES}
        scores = {
            at: [Judged(0.9, 0.9 if at == search.LOWERED else 0.2)] * 8 for at in search.CANDIDATES
        }
        return search.Searched(TUNING[pair], cells, scores)

    pairs = [searched(0, search.LOWERED), searched(1, search.BASELINE)]
    assert [s.found(16) for s in pairs] == [search.LOWERED] * 2
    row = search._row(pairs, [search.LOWERED] * 2, 16)
    assert row["both"] == pytest.approx(1.25) and row["best"] == "1 of 2"
    assert str(row["over one"]).startswith("+0.00 [") and row["worst"] == "-0.50"
    assert str(row["over lowered"]).startswith("+0.00 [+0.00")
    assert row["evaluations"] == str((int(str(row["pictures"])) + 12) * (2 * STEPS + 2))
