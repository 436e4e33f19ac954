"""The registry of trainings, and what each of them shows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

import pytest

from ziplora_core.training import registry
from ziplora_core.training.interface import TrainingRecord
from ziplora_core.training.run_history import MOST_POINTS, MOST_SAMPLES, Run, summary
from ziplora_core.training.sample_strips import Strip


@pytest.fixture(autouse=True)
def empty_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A registry of its own for every test."""
    monkeypatch.setattr(registry, "_runs", [])
    yield


def recorded(steps: int) -> TrainingRecord:
    """A training whose losses are its step numbers."""
    values = [float(step) for step in range(1, steps + 1)]
    return TrainingRecord(history={"loss": values, "content": list(values)}, step=steps)


def test_request_stop_and_save_reach_one_run_or_all() -> None:
    with registry.registered(Run("1", 9)) as one, registry.registered(Run("2:5", 9)) as two:
        assert registry.request_stop("2:5") == ["2:5"]
        assert two.stop.is_set() and not one.stop.is_set()
        assert sorted(registry.request_stop()) == ["1", "2:5"] and one.stop.is_set()
        assert registry.request_save("1") == ["1"] and registry.request_save("1", "another") == []
        assert one.take_save() and not one.take_save() and not two.take_save()
    assert registry.request_stop() == registry.request_save("1") == []


def test_request_save_of_a_run_without_a_lora_on_the_way_is_not_promised() -> None:
    closed_form, search = Run("1"), Run("2", 9, saves=False)
    with registry.registered(closed_form), registry.registered(search):
        assert registry.request_save() == []
        assert not closed_form.take_save() and not search.take_save()


def test_registered_run_ends_with_its_state_and_stays_known() -> None:
    with registry.registered(Run("1", workflow="a")):
        assert [r["state"] for r in summary(registry.known())] == ["running"]
    with pytest.raises(KeyboardInterrupt), registry.registered(Run("2")):
        raise KeyboardInterrupt
    with pytest.raises(ValueError, match="bad"), registry.registered(Run("3")):
        raise ValueError("bad")
    with registry.registered(Run("1", workflow="b")) as stopped:
        stopped.stop.set()
        assert stopped.take_stop()
    states = [(r.node_id, r.workflow, r.state) for r in registry.known()]
    assert states == [
        ("1", "a", "finished"), ("2", "", "cancelled"), ("3", "", "failed"), ("1", "b", "stopped"),
    ]  # fmt: skip
    assert registry.find("1") is stopped and registry.find("1", "b") is stopped
    found = registry.find("1", "a")
    assert found is not None and found.state == "finished"
    assert registry.find("4") is registry.find("2", "a") is None


def test_registry_keeps_a_few_runs_one_of_each_node() -> None:
    for number in range(3 * registry.KEPT):
        with registry.registered(Run(str(number % (2 * registry.KEPT)))):
            pass
    assert [r.node_id for r in registry.known()] == [str(n) for n in range(registry.KEPT)]


def test_snapshot_after_a_step_has_only_what_is_new_as_json_knows_it() -> None:
    run = Run("7", steps=5)
    record = recorded(3)
    record.history["content"][1] = math.nan
    run.update(record)
    whole = json.loads(json.dumps(run.snapshot(), allow_nan=False))
    assert whole["points"] == {"step": [1, 2, 3], "loss": [1, 2, 3], "content": [1, None, 3]}
    assert (whole["step"], whole["steps"], whole["after"]) == (3, 5, 0)
    run.update(recorded(5))
    new = run.snapshot(after=3)
    assert new["points"] == {"step": [4, 5], "loss": [4, 5], "content": [4, 5]}
    assert run.snapshot(after=9)["after"] == 5 and run.snapshot(after=9)["points"]["step"] == []


def test_update_after_a_roll_back_forgets_the_steps_that_went_wrong() -> None:
    run = Run("7", steps=40)
    run.update(recorded(25))
    for step in (5, 10, 20):
        run.add_strip(step, Strip(b""))
    run.update(recorded(10))
    assert run.snapshot()["samples"] == [5, 10]
    shown = run.snapshot(after=25)
    assert (shown["step"], shown["after"], run.last()) == (10, 10, 10)
    run.update(recorded(12))
    assert run.snapshot(after=10)["points"]["loss"] == [11, 12]


def test_speed_is_of_evaluations_before_the_first_step_then_of_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr("ziplora_core.training.run_history.time.perf_counter", lambda: now)
    run = Run("7", steps=40)

    def speed(seconds: float) -> float | None:
        nonlocal now
        now += seconds
        run.tick()
        return run.snapshot()["speed"]

    run.prepared = (4, 80)
    assert speed(1) is None
    run.prepared = (34, 80)
    assert speed(3) == 10
    run.prepared = (4, 80)  # memory ran out, and it is done again
    assert speed(1) is None
    run.prepared = (9, 80)
    assert speed(1) == 5
    run.update(recorded(21))  # one that was resumed
    assert speed(1) is None
    run.update(recorded(23))
    assert speed(4) == 0.5


def test_update_of_a_long_run_is_thinned_out_evenly() -> None:
    run, whole = Run("7", steps=25_000), recorded(25_000)
    for step in (9_999, 15_000, 25_000):
        values = {name: history[:step] for name, history in whole.history.items()}
        run.update(TrainingRecord(history=values, step=step))
    points = run.snapshot()["points"]
    assert MOST_POINTS / 2 < len(points["step"]) <= MOST_POINTS
    assert points["step"] == points["loss"] == list(range(4, 25_001, 4))


def test_snapshot_names_all_files_of_the_last_save() -> None:
    run = Run("7")
    assert run.snapshot()["saved"] == []
    run.saved = ["step_5_content.safetensors", "step_5_style.safetensors"]
    assert run.snapshot()["saved"] == run.saved


def test_pictures_of_many_steps_are_thinned_out_and_keep_the_last() -> None:
    run = Run("7")
    for step in range(1, 200):
        run.add_strip(step, Strip(str(step).encode()))
    kept = run.snapshot()["samples"]
    assert len(kept) <= MOST_SAMPLES and kept[-1] == 199 and kept[0] < 16
    assert run.strips()[199].jpeg == b"199" and 500 not in run.strips()


def test_snapshot_names_the_captions_of_samples_where_they_change() -> None:
    run = Run("7")
    for step, captions in ((5, ("−2", "2")), (10, ("−2", "2")), (15, ()), (20, ("a",))):
        run.add_strip(step, Strip(b"", captions))
    assert run.snapshot()["captions"] == [["−2", "2"], None, [], ["a"]]


@pytest.mark.parametrize(
    ("in_time", "failed", "state"),
    [
        (False, False, "finished"),
        (True, False, "stopped"),
        (False, True, "rolled back"),
        (True, True, "rolled back"),
    ],
)
def test_run_ends_as_its_loop_did_even_when_asked_too_late(
    in_time: bool, failed: bool, state: str
) -> None:
    with registry.registered(Run("1", 5)) as run:
        run.update(TrainingRecord(step=3, failed=failed))
        assert not run.take_stop()
        run.stop.set()
        assert not in_time or run.take_stop()
    assert run.state == state
