"""The frame of `make reliability`: parts, tables, and what counts as a broken promise."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from reliability import document, faults, parts
from reliability.parts import Measured, Part
from reliability.promise import Promise
from sandbox.paths import ROOT


def test_every_part_has_its_place_in_the_document() -> None:
    text = (document.DOCS / document.DOCUMENT).read_text(encoding="utf-8")
    names = [part.name for part in parts.LIST]
    assert re.findall(r"^<!-- (\w+) -->$", text, re.MULTILINE) == names
    assert re.findall(r"^<!-- end of (\w+) -->$", text, re.MULTILINE) == names
    assert all(f"## {part.title}\n" in text for part in parts.LIST)


def test_measured_part_replaces_its_own_table_only(tmp_path: Path) -> None:
    shutil.copy(document.DOCS / document.DOCUMENT, tmp_path)
    faulty, whole = parts.LIST[0], parts.LIST[1]
    broken = Promise("nothing is lost", 1200, 1199, "the largest 3", ["a file was lost"])
    document.write(faulty, Measured([Promise("an older promise", 1, 1)], 1.0), tmp_path)
    document.write(whole, Measured([Promise("nothing is kept", 5, 5)], 90.0), tmp_path)
    document.write(faulty, Measured([broken], 1.0), tmp_path)
    text = (tmp_path / document.DOCUMENT).read_text(encoding="utf-8")
    assert "| nothing is lost | 1,200 | 1,199 | the largest 3 |\n\n- a file was lost\n" in text
    assert "| nothing is kept | 5 | 5 |  |" in text and "an older promise" not in text
    figures = json.loads((tmp_path / document.FIGURES).read_text())
    assert figures[faulty.name]["promises"][0]["broken"] == ["a file was lost"]
    assert "1.5 minutes" in figures[whole.name]["about"]


def test_part_that_does_not_end_by_itself_is_a_broken_promise() -> None:
    (missing,) = parts.measure(Part("no_such_part", "Nothing", 1.0), short=True).promises
    assert (missing.tried, missing.held) == (1, 0) and "no_such_part" in missing.broken[0]
    late = Part("no_such_part", "Nothing", 0.0)
    (slow,) = parts.measure(late, short=False).promises
    assert slow.held == 0 and "was not done in 0 minutes" in slow.broken[0]


def test_fault_that_changed_the_model_breaks_that_promise_alone() -> None:
    outcome = {
        "node": "Judge", "device": "cpu", "kind": "cancel", "place": "layer", "ended": "x",
        "resumed_at": 2, "left": 0, "broken": {"model": "", "resume": "", "typed": ""},
    }  # fmt: skip
    bad = outcome | {"broken": {"model": "model, hooks", "resume": ""}}
    found = {p.text: p for p in faults.promises([outcome, bad])}
    model, resume = (found[faults.TEXTS[name]] for name in ("model", "resume"))
    assert (model.tried, model.held) == (2, 1) and "model, hooks" in model.broken[0]
    assert (resume.tried, resume.held) == (2, 2) and resume.figures.startswith("2 went on")
    assert found[faults.TEXTS["typed"]].tried == 1 and faults.TEXTS["memory"] not in found


def test_test_that_holds_against_a_fault_exists() -> None:
    text = (document.DOCS / document.DOCUMENT).read_text(encoding="utf-8")
    named = re.findall(r"`(\w+/[\w/]+\.py)::(\w+)", text)
    assert len(named) > 30
    missing = [
        f"{file}::{test}"
        for file, test in named
        if f"def {test}(" not in (ROOT / "tests" / file).read_text(encoding="utf-8")
    ]
    assert missing == []
