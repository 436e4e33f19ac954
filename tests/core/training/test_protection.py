"""Failures that do not cost a training, and errors that come through."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from ziplora_core.training.checkpoint import CheckpointFolder
from ziplora_core.training.interface import ProgressCallbacks, TrainingRecord
from ziplora_core.training.protection import attempt, composed, forgiving


class Cancelled(BaseException):
    """As ComfyUI's InterruptProcessingException: not an Exception."""


def failing(*_args: Any) -> Any:
    raise ValueError("two\nlines")


def cancelled(*_args: Any) -> Any:
    raise Cancelled


def test_attempt_notes_and_logs_the_first_of_equal_failures(
    caplog: pytest.LogCaptureFixture,
) -> None:
    notes: list[str] = []
    with caplog.at_level(logging.ERROR):
        assert [attempt("drawing", failing, notes, 7) for _ in range(3)] == [7, 7, 7]
    assert len(notes) == len(caplog.records) == 1
    assert notes[0].startswith("WARNING: drawing failed (ValueError: two lines). ")
    assert caplog.records[0].exc_info is not None
    assert attempt("drawing", lambda: 3, notes, 7) == 3 and len(notes) == 1
    with pytest.raises(Cancelled):
        attempt("drawing", cancelled, notes, 7)


def test_composed_puts_what_failed_first_and_needs_no_report() -> None:
    notes = ["WARNING: drawing failed"]
    report = composed(lambda: "WARNING: old\nline", notes)
    assert report.splitlines() == ["WARNING: drawing failed", "WARNING: old", "line"]
    first, second = composed(failing, notes).splitlines()
    assert first == notes[0] and second.startswith("WARNING: writing the report failed")


def test_forgiving_watch_notes_messages_that_fail_and_lets_a_cancel_through() -> None:
    notes: list[str] = []
    named = ("step", "prepare", "status", "start", "samples", "solved", "saved")
    names = [f"on_{name}" for name in named]
    callbacks = forgiving(ProgressCallbacks(**dict.fromkeys(names, failing)), notes)
    callbacks.on_step(TrainingRecord())
    callbacks.on_prepare(1, 2)
    callbacks.on_status("a")
    callbacks.on_start(CheckpointFolder(Path()), TrainingRecord(), True)
    callbacks.on_samples(1, [], [])
    callbacks.on_solved([1.0])
    callbacks.on_saved(["a"], 1)
    assert len(notes) == 1 and "showing the training on the page failed" in notes[0]
    with pytest.raises(Cancelled):
        forgiving(ProgressCallbacks(on_step=cancelled), notes).on_step(TrainingRecord())
