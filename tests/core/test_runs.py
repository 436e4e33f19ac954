"""The registry of running trainings."""

from __future__ import annotations

import pytest

from ziplora_core import runs


def test_request_stop_reaches_one_run_or_all() -> None:
    with runs.registered("1") as one, runs.registered("2:5") as two:
        assert runs.request_stop("2:5") == ["2:5"]
        assert two.is_set() and not one.is_set()
        assert sorted(runs.request_stop()) == ["1", "2:5"] and one.is_set()
    assert runs.request_stop() == []


def test_registered_run_is_forgotten_after_an_error() -> None:
    with pytest.raises(KeyboardInterrupt), runs.registered("1"):
        raise KeyboardInterrupt
    assert runs.request_stop() == []
