"""Records of trainings: kept over an end, a resume and a restart, bounded, listed and deleted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ziplora_core.lora.origin import Origin
from ziplora_core.training.about import About, write_about
from ziplora_core.training.checkpoint import CheckpointFolder, mark_saved
from ziplora_core.training.interface import TrainingRecord
from ziplora_core.training.kept import in_use
from ziplora_core.training.past import TRAININGS, delete, table
from ziplora_core.training.past_list import details, entries
from ziplora_core.training.records import MOST_PICTURES, RECORDS, RecordFolder, fewer
from ziplora_core.training.run_history import Run
from ziplora_core.training.run_record import RunRecord
from ziplora_core.training.sample_strips import Strip

NAME, OTHER = "0123456789abcdef-01234567", "fedcba9876543210-76543210"
SETTINGS = [{"node": "", "input": "rank", "value": 4}]
SAID = {"method": "DreamBooth", "title": "a photo of\nsks dog", "key": "k", "settings": SETTINGS}


def folder(root: Path, name: str = NAME) -> RecordFolder:
    return RecordFolder.beside(root / TRAININGS / name)


def trained(root: Path, steps: int, at: int = 0, of: int = 8, **run: Any) -> RunRecord:
    """A run of some steps, resumed at one of them, with a picture of every second step."""
    record = RunRecord(folder(root), Run("5", of, "w"), SAID)
    record.run.resumes, record.run.state = True, run.get("state", "finished")
    losses = [1 / n for n in range(1, steps + 1)]
    record.run.update(TrainingRecord({"loss": losses}, steps, resumed_at=at, seconds=2.5))
    for step in range(1, steps + 1):
        if step % 2 == 0:
            record.run.add_strip(step, Strip(b"picture of run with %d" % steps, ("joint",)))
    record.write()
    return record


def checkpoint(root: Path, name: str = NAME) -> CheckpointFolder:
    """A checkpoint from which the training can go on."""
    kept = CheckpointFolder(root / TRAININGS / name)
    kept.path.mkdir(parents=True)
    kept.state_file.write_bytes(bytes(100))
    write_about(kept.path, About("DreamBooth", "a dog", steps=8, step=4))
    return kept


def test_record_of_a_run_is_read_and_listed_as_it_was_written(tmp_path: Path) -> None:
    trained(tmp_path, 4)
    folder(tmp_path).write_request({"5": {}}, {"id": "w"})
    (entry,) = entries(tmp_path)
    assert (entry["name"], entry["title"], entry["state"]) == (NAME, SAID["title"], "finished")
    assert (entry["step"], entry["steps"], entry["samples"]) == (4, 8, [2, 4])
    assert entry["seconds"] == 2.5 and entry["recorded"] and not entry["continues"]
    found = details(tmp_path, NAME)
    assert found is not None and found["settings"] == SETTINGS
    assert found["points"] == {"step": [1, 2, 3, 4], "loss": [1.0, 0.5, 0.33333, 0.25]}
    assert folder(tmp_path).request() == {"prompt": {"5": {}}, "workflow": {"id": "w"}}
    assert details(tmp_path, OTHER) is None and details(tmp_path, "../" + RECORDS) is None


def test_record_of_an_earlier_version_says_of_no_file_after_which_step_it_was_saved(
    tmp_path: Path,
) -> None:
    trained(tmp_path, 4)
    file = folder(tmp_path).path / "record.json"
    said = {**json.loads(file.read_text()), "files": ["old.safetensors"]}
    del said["saved_at"]
    file.write_text(json.dumps(said))
    (entry,) = entries(tmp_path)
    assert (entry["files"], entry["saved_at"]) == (["old.safetensors"], {})


def test_run_that_learned_nothing_leaves_an_earlier_record_as_it_was(tmp_path: Path) -> None:
    trained(tmp_path, 4)
    RunRecord(folder(tmp_path), Run("5", 8), SAID).write()
    assert entries(tmp_path)[0]["samples"] == [2, 4]
    assert not folder(tmp_path, OTHER).path.exists()
    RunRecord(folder(tmp_path, OTHER), Run("5", 8), SAID).write()
    assert not folder(tmp_path, OTHER).path.exists()


def test_resumed_run_goes_on_in_its_record_with_its_samples_and_files(tmp_path: Path) -> None:
    first = trained(tmp_path, 4, state="stopped")
    first.files["unfinished/a_00004.safetensors"] = 4
    first.write()
    trained(tmp_path, 8, at=4)
    found = details(tmp_path, NAME)
    assert found is not None and found["samples"] == [2, 4, 6, 8]
    assert found["started"] == first.started < found["ended"]
    assert found["saved_at"] == {"unfinished/a_00004.safetensors": 4}
    assert found["files"] == ["unfinished/a_00004.safetensors"]
    assert found["captions"] == [["joint"]] * 4
    pictures = [folder(tmp_path).picture(step) for step in (2, 8)]
    assert pictures == [b"picture of run with 4", b"picture of run with 8"]


def test_run_that_starts_anew_takes_the_record_once_it_has_come_as_far(tmp_path: Path) -> None:
    before = trained(tmp_path, 4)
    before.files["old.safetensors"] = 3
    before.write()
    trained(tmp_path, 2, state="cancelled")
    found = details(tmp_path, NAME)
    assert found is not None and (found["samples"], found["state"]) == ([2, 4], "finished")
    assert folder(tmp_path).picture(2) == b"picture of run with 4"
    trained(tmp_path, 6)
    found = details(tmp_path, NAME)
    assert found is not None and found["samples"] == [2, 4, 6]
    assert found["files"] == ["old.safetensors"]  # which is still there
    assert folder(tmp_path).picture(2) == b"picture of run with 6"


def test_record_keeps_few_pictures_among_them_the_last(tmp_path: Path) -> None:
    trained(tmp_path, 100, of=100)
    samples = entries(tmp_path)[0]["samples"]
    assert len(samples) <= MOST_PICTURES and samples[-1] == 100
    assert {f"{step}.jpg" for step in samples} == {p.name for p in _pictures(tmp_path)}
    assert fewer([1, 2, 3], 2) == [1, 3] and fewer([], 2) == []


def _pictures(root: Path) -> list[Path]:
    return list(folder(root).path.glob("*.jpg"))


def test_saved_result_is_noted_in_the_record_which_stays_when_the_checkpoint_goes(
    tmp_path: Path,
) -> None:
    trained(tmp_path, 4)
    kept = checkpoint(tmp_path)
    write_about(kept.path, About("DreamBooth", "a dog", steps=4, step=4, state="finished"))

    class Result:
        origin = Origin(kept.path, 4)

    mark_saved(Result(), "my_dog_00001_.safetensors")
    assert not kept.path.exists()
    (entry,) = entries(tmp_path)
    assert entry["files"] == ["my_dog_00001_.safetensors"]
    assert entry["saved_at"] == {"my_dog_00001_.safetensors": 4}


def test_stopped_or_killed_training_continues_while_its_checkpoint_is_there(tmp_path: Path) -> None:
    trained(tmp_path, 4, state="running")
    assert not entries(tmp_path)[0]["continues"]
    kept = checkpoint(tmp_path)
    assert not entries(tmp_path)[0]["continues"]  # what to queue is not known
    folder(tmp_path).write_request({}, None)
    (entry,) = entries(tmp_path)
    assert entry["continues"] and entry["state"] == "cut short"
    with in_use(kept.path):
        (entry,) = entries(tmp_path)
        assert entry["state"] == "running" and not entry["continues"]


def test_training_without_a_record_is_listed_by_its_note(tmp_path: Path) -> None:
    checkpoint(tmp_path)
    (entry,) = entries(tmp_path)
    assert (entry["title"], entry["step"], entry["recorded"]) == ("a dog", 4, False)
    assert (entry["state"], entry["continues"]) == ("cut short", False)
    found = details(tmp_path, NAME)
    assert found is not None and found["points"] == {"step": []}


def test_training_is_deleted_with_its_record(tmp_path: Path) -> None:
    trained(tmp_path, 4)
    checkpoint(tmp_path)
    with in_use(folder(tmp_path).path):
        assert "not deleted, as a training uses it" in delete(tmp_path, "named", NAME)[-1]
    assert folder(tmp_path).path.exists()
    delete(tmp_path, "named", NAME)
    assert entries(tmp_path) == []


@pytest.mark.parametrize(("choice", "left"), [("unfinished", [OTHER]), ("everything", [])])
def test_choice_deletes_records_of_its_trainings_and_everything_all(
    choice: str, left: list[str], tmp_path: Path
) -> None:
    trained(tmp_path, 4)
    checkpoint(tmp_path)
    folder(tmp_path).path.with_name(OTHER).mkdir()
    for file in folder(tmp_path).path.iterdir():
        (file.parent.with_name(OTHER) / file.name).write_bytes(file.read_bytes())
    lines = table(tmp_path)
    assert any(line.startswith("2 records of trainings, ") for line in lines)
    assert "    a photo of sks dog" in lines  # the one whose checkpoint is gone
    delete(tmp_path, choice, "")
    assert [entry["name"] for entry in entries(tmp_path)] == left


@pytest.mark.parametrize(
    "change",
    [
        {"points": {"step": [1, 2], "loss": [1.0]}},
        {"points": {"step": [1], "loss": [float("nan")]}},
        {"points": {}},
        {"started": float("inf")},
        {"step": -1},
        {"files": [1]},
        {"saved_at": {"a": "b"}},
        {"title": None},
        {"samples": ["../1"]},
    ],
    ids=str,
)
def test_damaged_record_is_none(change: dict[str, Any], tmp_path: Path) -> None:
    trained(tmp_path, 4)
    file = folder(tmp_path).path / "record.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    assert folder(tmp_path).read() is None
    assert [entry["recorded"] for entry in entries(tmp_path)] == [False]
