"""The file of a training state: every kind of tensor comes back, and nothing else is believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from reliability.mutations import damaged
from ziplora_core.training.checkpoint import CheckpointFolder
from ziplora_core.training.state_file import (
    UnusableStateError,
    read_state_file,
    write_state_file,
)

TENSORS = {
    "one": torch.tensor(3.0),
    "none": torch.zeros(0, 4),
    "rows": torch.randn(5, 7).T,
    "half": torch.randn(3).to(torch.bfloat16),
    "chosen": torch.tensor([True, False, True]),
    "bytes": torch.arange(9, dtype=torch.uint8).reshape(3, 3),
    "exact": torch.tensor([0.1, 1e300, 5e-324], dtype=torch.float64),
}
SAID = {"text": "ä \ud800", "numbers": [1, 2.5], "none": None}


def test_state_file_gives_back_every_kind_of_tensor(tmp_path: Path) -> None:
    write_state_file(tmp_path / "state", TENSORS, SAID)
    tensors, said = read_state_file(tmp_path / "state")
    assert said == SAID and [*tensors] == [*TENSORS]
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype and torch.equal(tensors[name], tensor)
    assert [file.name for file in tmp_path.iterdir()] == ["state"]


def test_state_file_is_read_by_other_programs(tmp_path: Path) -> None:
    write_state_file(tmp_path / "state", TENSORS, SAID)
    others = safetensors.torch.load_file(tmp_path / "state")
    assert others.pop("sha256").shape == (32,)
    assert all(torch.equal(others[name], tensor) for name, tensor in TENSORS.items())
    with safe_open(tmp_path / "state", "pt") as file:
        assert json.loads(file.metadata()["ziplora.state"]) == SAID


def test_state_file_saved_by_another_program_is_not_believed(tmp_path: Path) -> None:
    write_state_file(tmp_path / "state", TENSORS, SAID)
    tensors = safetensors.torch.load_file(tmp_path / "state")
    tensors["one"] += 1
    metadata = {"ziplora.state": json.dumps(SAID)}
    safetensors.torch.save_file(tensors, tmp_path / "state", metadata)
    with pytest.raises(UnusableStateError, match="does not match its SHA-256"):
        read_state_file(tmp_path / "state")


def test_state_file_that_is_a_folder_or_missing_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(UnusableStateError, match="it cannot be read"):
            read_state_file(path)


def test_reason_of_a_refusal_is_short(tmp_path: Path) -> None:
    header = json.dumps({"k" * 1_000_000: {"dtype": "none", "shape": [], "data_offsets": [0, 0]}})
    (tmp_path / "state").write_bytes(len(header).to_bytes(8, "little") + header.encode())
    with pytest.raises(UnusableStateError) as refused:
        read_state_file(tmp_path / "state")
    assert len(str(refused.value)) <= 200


def test_damaged_checkpoints_are_set_aside_and_nothing_else_is_raised(tmp_path: Path) -> None:
    seen = [*damaged(180, tmp_path)]
    assert {s.outcome for s in seen} <= {"set aside", "the same numbers"}
    assert sum(s.outcome == "set aside" for s in seen) >= 175
    assert len({s.kind for s in seen}) == 15


class Trap:
    """An object that makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def test_pickle_of_an_earlier_version_is_named_and_never_opened(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = CheckpointFolder(tmp_path / "run")
    folder.path.mkdir()
    torch.save({"parameters": Trap(tmp_path / "sprung")}, folder.older_state_file)
    found = folder.load()
    assert found.state is None and not (tmp_path / "sprung").exists()
    (note,) = found.notes
    assert "run/state.pt was not resumed: an earlier version of the pack wrote it" in note
    assert note in caplog.text
    assert [file.name for file in folder.path.iterdir()] == ["state.set_aside"]
