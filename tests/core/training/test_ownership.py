"""Two trainings of the same inputs, in one process or two, never write one checkpoint folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ziplora_core.errors import ZipLoRAError
from ziplora_core.training.ownership import is_owned, owned

ROOT = Path(__file__).parents[3]
OTHER = """
import sys
from pathlib import Path
from ziplora_core.training.ownership import owned
with owned(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints" / "0123-4567"


def start_another(folder: Path) -> subprocess.Popen[str]:
    """Start a process that holds the folder until its input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER, str(folder)], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_folder_of_another_process_is_refused_by_name_until_it_ends(folder: Path) -> None:
    process = start_another(folder)
    found = rf"training: found the same training in the ComfyUI with process id {process.pid} on "
    with pytest.raises(ZipLoRAError, match=found), owned(folder):
        pass
    assert is_owned(folder)
    process.communicate()
    assert not is_owned(folder)
    with owned(folder):
        assert is_owned(folder)


def test_folder_of_a_killed_process_is_free(folder: Path) -> None:
    process = start_another(folder)
    process.kill()
    process.communicate()
    assert not is_owned(folder)
    (left,) = folder.parent.iterdir()
    with owned(folder.with_name("another")):
        assert not left.exists()
    with owned(folder):
        pass
    assert [*folder.parent.iterdir()] == []


def test_nothing_is_left_after_an_end_or_an_error(folder: Path) -> None:
    with owned(folder), owned(folder.with_name("another")):
        assert len([*folder.parent.iterdir()]) == 2
    with pytest.raises(KeyboardInterrupt), owned(folder):
        raise KeyboardInterrupt
    assert [*folder.parent.iterdir()] == [] and not is_owned(folder)


def test_training_goes_on_where_no_lock_can_be_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with owned(tmp_path / "file" / "folder"), owned(None):
        pass
    assert "two trainings may write" in caplog.text
