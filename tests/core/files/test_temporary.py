"""Temporary files: those of ended processes are removed, those of living ones stay."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ziplora_core.files.temporary import (
    UNSURE_AFTER,
    Removed,
    remove_abandoned,
    temporary_file,
    this_computer,
)

ROOT = Path(__file__).resolve().parents[3]
WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from ziplora_core.files.temporary import temporary_file
with temporary_file(Path(sys.argv[2])) as (path, file):
    file.write(b"half of a file")
    file.flush()
    print(path.name, flush=True)
    sys.stdin.read()
"""


def start_writer(folder: Path) -> tuple[subprocess.Popen[str], Path]:
    """Start a process that is in the middle of writing a file."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(ROOT), str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    return process, folder / process.stdout.readline().strip()


def let_go(process: subprocess.Popen[str]) -> None:
    process.communicate("")


def aged(path: Path, seconds: float) -> Path:
    path.write_bytes(b"12345")
    os.utime(path, (time.time() - seconds,) * 2)
    return path


def test_temporary_file_of_a_killed_process_is_removed_at_once(tmp_path: Path) -> None:
    inside = tmp_path / "sub" / "sub"
    inside.mkdir(parents=True)
    process, path = start_writer(inside)
    process.kill()
    process.communicate()
    assert path.exists()
    assert remove_abandoned(tmp_path) == Removed(1, len(b"half of a file"))
    assert not path.exists()


def test_temporary_file_of_a_living_process_stays_however_old_it_is(tmp_path: Path) -> None:
    process, path = start_writer(tmp_path)
    try:
        os.utime(path, (0, 0))
        assert remove_abandoned(tmp_path) == Removed()
        os.kill(process.pid, signal.SIGSTOP)  # as a computer that was put to sleep
        assert remove_abandoned(tmp_path) == Removed() and path.exists()
        os.kill(process.pid, signal.SIGCONT)
    finally:
        let_go(process)
    assert not path.exists()


def test_temporary_file_of_this_process_stays(tmp_path: Path) -> None:
    with temporary_file(tmp_path) as (path, _):
        assert remove_abandoned(tmp_path) == Removed() and path.exists()
    assert not path.exists()


@pytest.mark.parametrize("name", [".ziplora-00000000-0123456789ab.tmp", ".0123456789abcdef.tmp"])
def test_temporary_file_of_another_computer_or_version_stays_for_a_day(
    name: str, tmp_path: Path
) -> None:
    path = aged(tmp_path / name, UNSURE_AFTER - 60)
    assert this_computer() != "00000000"
    assert remove_abandoned(tmp_path) == Removed() and path.exists()
    aged(path, UNSURE_AFTER + 60)
    assert remove_abandoned(tmp_path) == Removed(1, 5)


@pytest.mark.parametrize(
    "name", ["a.tmp", ".a.tmp", ".0123456789abcdef.safetensors", "0123456789abcdef.tmp"]
)
def test_file_of_another_name_is_never_removed(name: str, tmp_path: Path) -> None:
    path = aged(tmp_path / name, 10 * UNSURE_AFTER)
    assert remove_abandoned(tmp_path) == Removed() and path.exists()


def test_temporary_files_are_not_searched_for_behind_links(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    path = aged(outside / ".0123456789abcdef.tmp", 10 * UNSURE_AFTER)
    (inside / "link").symlink_to(outside)
    (inside / path.name).symlink_to(path)
    assert remove_abandoned(inside) == Removed() and path.exists()


def test_removing_abandoned_files_of_an_absent_folder_does_nothing(tmp_path: Path) -> None:
    assert remove_abandoned(tmp_path / "absent") == Removed()


def test_name_of_a_temporary_file_fits_on_every_disk(tmp_path: Path) -> None:
    with temporary_file(tmp_path) as (path, _):
        assert re.fullmatch(r"\.ziplora-[0-9a-f]{8}-[0-9a-f]{12}\.tmp", path.name)
        assert len(path.name) <= 40
