"""The state of a training that has ended stays until its result is in a file, and no longer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ziplora_core.files.writer import lora_model
from ziplora_core.lora.factors import LoRA, LoraModel
from ziplora_core.lora.merged import MergedLoRA, truncated
from ziplora_core.lora.origin import Origin
from ziplora_core.training.about import About
from ziplora_core.training.checkpoint import CheckpointFolder, mark_saved
from ziplora_core.training.interface import LoopCallbacks
from ziplora_core.training.loop import train
from ziplora_core.training.resume_key import VERSION, Inputs
from ziplora_core.training.saved_state import SavedState
from ziplora_core.training.state_file import read_state_file, write_state_file

from ..ziplora.ziplora_task import STEPS, objective

SAVED = About("ZipLoRA", "a + b", STEPS, STEPS, "finished")


def trained(path: Path, stop: int = STEPS, fail: int = 0) -> CheckpointFolder:
    """Train until the end, a stop request, or a loss that is not finite."""
    folder = CheckpointFolder(path, method="ZipLoRA", title="a + b")
    task, asked = objective(), iter(range(STEPS + 1))
    denoise, calls = task.model.denoise, []

    def denoised(*args: Any) -> torch.Tensor:
        calls.append(1)
        return denoise(*args) * (float("nan") if len(calls) == fail else 1.0)

    task.model.denoise = denoised
    callbacks = LoopCallbacks(lambda _: LoRA("", {}), should_stop=lambda: next(asked) == stop)
    train(task, STEPS, task.options, callbacks, folder)
    return folder


def result(folder: CheckpointFolder, part: str = "") -> LoraModel:
    about = folder.about()
    assert about is not None
    return LoraModel({}, {}, Origin(folder.path, about.step, part))


def test_folder_says_what_it_is_of(tmp_path: Path) -> None:
    assert trained(tmp_path / "whole").about() == SAVED
    assert trained(tmp_path / "stopped", stop=5).about() == replace(
        SAVED, step=5, state="unfinished"
    )
    assert trained(tmp_path / "failed", fail=12).about() == replace(
        SAVED, step=10, state="rolled back"
    )
    said = json.loads((tmp_path / "whole" / "about.json").read_text())
    assert said == {
        "method": "ZipLoRA", "title": "a + b", "steps": STEPS, "step": STEPS, "state": "finished",
        "saved": [], "parts": [], "version": VERSION,
    }  # fmt: skip


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"method": 1}', "[" * 100_000, '{"saved": [1]}', "\ud800", "nul"]
)
def test_note_that_cannot_be_read_is_none(text: str, tmp_path: Path) -> None:
    folder = trained(tmp_path / "run")
    (folder.path / "about.json").write_bytes(text.encode(errors="surrogatepass"))
    assert folder.about() is None
    mark_saved(LoraModel({}, {}, Origin(folder.path, STEPS)), "file")
    assert folder.state_file.exists()


@pytest.mark.parametrize("fail", [0, 12])
def test_folder_goes_when_the_result_is_in_a_file_and_later_files_are_no_error(
    fail: int, tmp_path: Path
) -> None:
    folder = trained(tmp_path / "run", fail=fail)
    made = result(folder)
    for name in ("one", "two"):
        mark_saved(made, name)
        assert not folder.path.exists()


def test_two_halves_are_the_whole_and_one_is_not(tmp_path: Path) -> None:
    folder = trained(tmp_path / "run")
    content, style = (result(folder, part) for part in ("content", "style"))
    for name in ("first", "second", "first"):
        mark_saved(content, name)
        assert folder.state_file.exists()
    assert folder.about() == replace(SAVED, saved=("first", "second"), parts=("content",))
    mark_saved(style, "third")
    assert not folder.path.exists()


def test_training_that_can_go_on_stays_and_forgets_the_halves_of_other_steps(
    tmp_path: Path,
) -> None:
    folder = trained(tmp_path / "run", stop=5)
    stopped = result(folder, "content")
    mark_saved(stopped, "stopped")
    mark_saved(result(folder, ""), "whole")
    assert folder.state_file.exists()
    trained(tmp_path / "run")
    assert folder.about() == replace(SAVED, saved=("stopped", "whole"))
    mark_saved(stopped, "again")
    mark_saved(result(folder, "style"), "style")
    assert folder.state_file.exists()


def test_lora_of_another_place_marks_nothing(tmp_path: Path) -> None:
    folder = trained(tmp_path / "run")
    for other in ({}, LoraModel({}, {}), MergedLoRA({}), None):
        mark_saved(other, "file")
    assert folder.about() == SAVED


def test_full_disk_at_the_note_leaves_the_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_args: Any) -> None:
        raise OSError(28, "No space left on device")

    folder = trained(tmp_path / "run")
    monkeypatch.setattr("ziplora_core.training.checkpoint.write_about", full)
    mark_saved(result(folder, "content"), "half")
    assert folder.state_file.exists() and "half is saved, but not noted" in caplog.text


def test_only_the_whole_result_comes_from_the_training(tmp_path: Path) -> None:
    task = objective()
    merged = MergedLoRA(task.pairs, origin=Origin(tmp_path, 3))
    assert merged.at(1, 1).origin == merged.origin and merged.at(1, 0.5).origin is None
    assert truncated(merged, 1)[0].origin is None and truncated(merged, 9)[0].origin
    assert lora_model(merged.modules(), {}, merged.origin).origin == merged.origin
    assert lora_model(merged.modules(), {}).origin is None


def test_state_of_a_training_that_has_ended_has_no_optimiser(tmp_path: Path) -> None:
    whole, part = trained(tmp_path / "whole"), trained(tmp_path / "part", stop=STEPS - 1)
    states = [folder.load().state for folder in (whole, part)]
    assert [bool(state and state.optimiser) for state in states] == [False, True]


def test_early_end_is_kept_and_not_judged_again(tmp_path: Path) -> None:
    task, folder = objective(), CheckpointFolder(tmp_path / "run")
    task.finished = lambda history: "enough" if len(history["loss"]) == 4 else None
    train(task, STEPS, task.options, LoopCallbacks(lambda _: LoRA("", {})), folder)
    again = objective()
    record = train(again, STEPS, again.options, LoopCallbacks(lambda _: LoRA("", {})), folder)
    assert (record.step, record.resumed_at, record.stopped) == (4, 4, "enough")
    assert torch.equal(again.coefficients.flat, task.coefficients.flat)


def test_checkpoint_of_another_version_or_training_is_named_and_kept_only_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, other = trained(tmp_path / "run"), trained(tmp_path / "other")
    tensors, said = read_state_file(folder.state_file)
    write_state_file(folder.state_file, tensors, {**said, "version": VERSION - 1})
    (first,) = folder.load().notes
    assert f"it is of version {VERSION - 1} of the training" in first
    folder.state_file.write_bytes(other.state_file.read_bytes())
    (second,) = folder.load().notes
    assert "run/state.safetensors was not resumed: it is of another training" in second
    assert first in caplog.text and second in caplog.text
    assert sorted(f.name for f in folder.path.iterdir()) == ["about.json", "state.set_aside"]


def test_folder_whose_inputs_cannot_be_read_is_named_where_it_is_not_resumed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = SavedState([torch.zeros(3)], {}, {"loss": [1.0]}, step=1, steps=2)
    first = CheckpointFolder.of(Inputs({}, {"w": torch.ones(3)}), tmp_path)
    first.save(state)
    (first.path / "inputs.numbers").write_bytes(b"damaged")
    near = CheckpointFolder.of(Inputs({}, {"w": torch.ones(3) * 1.001}), tmp_path)
    (note,) = near.load().notes
    assert first.path.name in note and "cannot be read" in note and note in caplog.text
    same = CheckpointFolder.of(Inputs({}, {"w": torch.ones(3)}), tmp_path)
    assert same.load().state is not None
    same.save(state)  # writes the inputs again
    near = CheckpointFolder.of(Inputs({}, {"w": torch.ones(3) * 1.001}), tmp_path)
    assert near.path == first.path


def test_optimiser_whose_state_is_another_kind_of_thing_is_refused(tmp_path: Path) -> None:
    folder = trained(tmp_path / "run", stop=5)
    task = objective(replace(objective().options, optimiser="sgd"))
    record = train(task, STEPS, task.options, LoopCallbacks(lambda _: LoRA("", {})), folder)
    assert record.resumed_at == 0 and "its optimiser has the state of other" in record.notes[0]
