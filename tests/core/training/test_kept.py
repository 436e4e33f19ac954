"""What is kept between trainings: states, limits, the order of removal, and deletion by choice."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ziplora_core.errors import ZipLoRAError
from ziplora_core.files.temporary import UNSURE_AFTER
from ziplora_core.training.about import About, write_about
from ziplora_core.training.checkpoint import CheckpointFolder
from ziplora_core.training.kept import STATES, in_use, is_in_use, look, remove
from ziplora_core.training.limits import Limits, in_bytes, kept_within_limits, make_room
from ziplora_core.training.past import CLASS_PICTURES, TRAININGS, delete, table

ROOT = Path(__file__).resolve().parents[3]
DAY = 24 * 3600
USER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from ziplora_core.training.kept import in_use
with in_use(Path(sys.argv[2])):
    print("ready", flush=True)
    sys.stdin.read()
"""
ABOUT = {
    "nothing to resume": None,
    "saved": About(method="M", steps=4, step=4, state="finished", parts=("content", "style")),
    "unfinished": About(method="M", title="a dog", steps=4, step=2, saved=("a.safetensors",)),
    "finished, not saved": About(method="M", steps=4, step=4, state="rolled back"),
}


def kept(root: Path, name: str, state: str, days: float = 0.0, size: int = 1000) -> Path:
    """Make a training's folder in one of STATES, last used some days ago."""
    folder = root / name
    folder.mkdir(parents=True)
    about = ABOUT[state]
    if about is not None:
        write_about(folder, about)
        CheckpointFolder(folder).state_file.write_bytes(bytes(size))
    else:
        CheckpointFolder(folder).set_aside_file.write_bytes(bytes(size))
    for path in (*folder.iterdir(), folder):
        os.utime(path, (time.time() - days * DAY,) * 2)
    return folder


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.is_dir())


def start_user(folder: Path) -> subprocess.Popen[str]:
    """Start a process that uses a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", USER, str(ROOT), str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("state", STATES)
def test_state_of_a_folder_is_what_its_files_say(state: str, tmp_path: Path) -> None:
    kept(tmp_path, "a", state)
    assert [k.state for k in look(tmp_path)] == [state]


def test_state_of_an_older_version_is_unfinished(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    CheckpointFolder(tmp_path / "a").older_state_file.write_bytes(b"x")
    assert [k.state for k in look(tmp_path)] == ["unfinished"]


def test_folder_is_in_use_until_the_last_process_that_uses_it_has_ended(tmp_path: Path) -> None:
    folder = kept(tmp_path, "a", "saved", days=100)
    first, second = start_user(folder), start_user(folder)
    try:
        first.kill()
        first.communicate()
        assert is_in_use(folder) and not remove(look(tmp_path)[0])
        assert [k.state for k in look(tmp_path)] == ["running"]
    finally:
        second.kill()
        second.communicate()
    assert not is_in_use(folder) and remove(look(tmp_path)[0])
    assert names(tmp_path) == []


def test_mark_leaves_nothing_behind(tmp_path: Path) -> None:
    with in_use(tmp_path / "a"), in_use(tmp_path / "a"):
        assert is_in_use(tmp_path / "a")
    assert names(tmp_path) == []
    kept(tmp_path, "b", "saved")
    with in_use(tmp_path / "b"):
        pass
    assert not (tmp_path / "b" / ".in_use").exists() and names(tmp_path) == ["b"]


def test_mark_of_another_computer_counts_for_a_day_after_the_last_change(tmp_path: Path) -> None:
    folder = kept(tmp_path, "a", "saved")
    (folder / ".in_use").write_text("00000000")
    assert is_in_use(folder)
    for path in (*folder.iterdir(), folder):
        os.utime(path, (time.time() - UNSURE_AFTER - 60,) * 2)
    assert not is_in_use(folder)


def test_room_is_made_in_the_stated_order(tmp_path: Path) -> None:
    for state in reversed(STATES):
        for days in (1, 2):
            kept(tmp_path, f"{STATES.index(state)}{days}", state, days)
    gone = []
    for left in range(8, 0, -1):  # `own` counts, too
        Limits(number=left, days=0, gigabytes=0).write(tmp_path)
        gone += [k.path.name for k in make_room(tmp_path, tmp_path / "own")]
    assert gone == ["02", "01", "12", "11", "22", "21", "32", "31"]


def test_bytes_are_limited_and_what_is_too_old_goes_first(tmp_path: Path) -> None:
    Limits(number=0, days=14, gigabytes=2500e-9).write(tmp_path)
    kept(tmp_path, "old", "finished, not saved", days=15)
    for days, name in enumerate(("own", "new", "older", "oldest"), 1):
        kept(tmp_path, name, "unfinished", days, size=1000)
    removed = make_room(tmp_path, tmp_path / "own")
    assert [k.path.name for k in removed] == ["old", "oldest", "older"]
    assert names(tmp_path) == ["new", "own"]


def test_own_and_running_folders_stay_whatever_the_limits(tmp_path: Path) -> None:
    Limits(number=1, days=1, gigabytes=1e-9).write(tmp_path)
    kept(tmp_path, "own", "saved", days=100)
    running = kept(tmp_path, "running", "saved", days=100)
    kept(tmp_path, "other", "finished, not saved", days=0)
    with in_use(running):
        removed = make_room(tmp_path, tmp_path / "own")
    assert [k.path.name for k in removed] == ["other"]
    assert names(tmp_path) == ["own", "running"]


def test_without_one_of_its_own_only_what_is_there_counts(tmp_path: Path) -> None:
    Limits(number=1, days=0, gigabytes=0).write(tmp_path)
    kept(tmp_path, "a", "unfinished", days=2)
    assert make_room(tmp_path) == []
    kept(tmp_path, "b", "unfinished", days=1)
    assert [k.path.name for k in make_room(tmp_path)] == ["a"]


def test_without_limits_nothing_is_removed(tmp_path: Path) -> None:
    Limits(0, 0, 0).write(tmp_path)
    kept(tmp_path, "a", "nothing to resume", days=10_000)
    assert make_room(tmp_path, tmp_path / "own") == [] and names(tmp_path) == ["a"]


@pytest.mark.parametrize(
    "said", [b"", b"{", b"[1]", b'{"number": 1}', b'{"number": -1, "days": 1, "gigabytes": 1}',
             b'{"number": 1, "days": NaN, "gigabytes": 1}', b"\xff", b"[" * 100_000]
)  # fmt: skip
def test_unreadable_limits_are_the_usual_ones(said: bytes, tmp_path: Path) -> None:
    (tmp_path / "limits.json").write_bytes(said)
    assert Limits.read(tmp_path) == Limits()


def test_bytes_stay_within_the_limits_over_many_trainings(tmp_path: Path) -> None:
    root, stage = tmp_path / "root", tmp_path / "stage"
    Limits(number=5, days=14, gigabytes=3500e-9).write(root)
    notes: list[str] = []
    for number in range(40):
        own = root / f"{number:02}"
        with kept_within_limits(own, "trainings", notes) as lines:
            assert sum(k.bytes for k in look(root)) <= 3500
            for path in kept(stage, own.name, STATES[number % 4]).iterdir():
                path.rename(own / path.name)
        assert lines[0].startswith("trainings kept: ")
        assert own.exists()
        assert len(look(root)) <= 5 and sum(k.bytes for k in look(root)) <= 3500
    assert not notes


def test_room_is_also_made_after_a_training_that_was_cancelled(tmp_path: Path) -> None:
    Limits(number=1, days=0, gigabytes=0).write(tmp_path)
    with pytest.raises(KeyboardInterrupt), kept_within_limits(tmp_path / "own", "x", []) as lines:
        kept(tmp_path, "other", "unfinished")
        (tmp_path / "own" / "file").touch()
        raise KeyboardInterrupt
    assert names(tmp_path) == ["own"] and "removed to stay within" in lines[1]


def work_folder(tmp_path: Path) -> Path:
    """The pack's folder with a training in every state, class pictures, and files beside it."""
    root = tmp_path / "output" / "ziplora"
    for number, state in enumerate(STATES):
        kept(root / TRAININGS, f"t{number}", state)
    pictures = root / CLASS_PICTURES / "c0"
    pictures.mkdir(parents=True)
    (pictures / "0000.safetensors").write_bytes(bytes(10))
    (tmp_path / "output" / "loras").mkdir()
    (tmp_path / "output" / "loras" / "mine.safetensors").write_bytes(b"mine")
    return root


@pytest.mark.parametrize(
    ("choice", "left"),
    [
        ("nothing", "t0 t1 t2 t3 c0"),
        ("saved", "t2 t3 c0"),
        ("finished", "t2 c0"),
        ("unfinished", "t0 t1 t3 c0"),
        ("class pictures", "t0 t1 t2 t3"),
        ("temporary files", "t0 t1 t2 t3 c0"),
        ("everything", ""),
    ],
)
def test_delete_removes_what_was_chosen_and_nothing_else(
    choice: str, left: str, tmp_path: Path
) -> None:
    root = work_folder(tmp_path)
    delete(root, choice, "")
    assert [*names(root / TRAININGS), *names(root / CLASS_PICTURES)] == left.split()
    assert (tmp_path / "output" / "loras" / "mine.safetensors").read_bytes() == b"mine"


def test_delete_by_name_removes_these(tmp_path: Path) -> None:
    root = work_folder(tmp_path)
    assert delete(root, "named", " t1, c0\n\nt3\n")[0].startswith("deleted: t1, c0, t3, ")
    assert [*names(root / TRAININGS), *names(root / CLASS_PICTURES)] == ["t0", "t2"]


@pytest.mark.parametrize(
    "name", ["", "..", "../../loras", "t1/..", "/", ".", "t9", "checkpoints", "t1\0", "T1/", "*"]
)
def test_delete_of_a_name_that_is_not_in_the_list_is_refused(name: str, tmp_path: Path) -> None:
    root = work_folder(tmp_path)
    with pytest.raises(ZipLoRAError, match="folders: found"):
        delete(root, "named", f"t0\n{name}" if name else "")
    assert names(root / TRAININGS) == ["t0", "t1", "t2", "t3"]


def test_delete_leaves_what_a_training_uses(tmp_path: Path) -> None:
    root = work_folder(tmp_path)
    with in_use(root / TRAININGS / "t1"):
        lines = delete(root, "everything", "")
        assert "not deleted, as a training uses it: t1" in lines
        assert names(root / TRAININGS) == ["t1"]


def test_links_among_the_folders_are_not_listed_or_followed(tmp_path: Path) -> None:
    root = work_folder(tmp_path)
    (root / TRAININGS / "link").symlink_to(tmp_path / "output" / "loras")
    (root / TRAININGS / "t1" / "link").symlink_to(tmp_path / "output" / "loras")
    delete(root, "everything", "")
    assert (tmp_path / "output" / "loras" / "mine.safetensors").exists()
    assert not any("link" in line for line in table(root))


def test_table_names_everything_that_is_kept(tmp_path: Path) -> None:
    root = work_folder(tmp_path)
    text = "\n".join(table(root))
    assert text.startswith("4 trainings, 4.")
    assert "; limits: 20, 14 days, 20 GB" in text
    assert "t2, M, step 2 of 4, unfinished, 1." in text
    assert "    a dog\n    in a.safetensors" in text
    assert "1 set of class pictures, 10 bytes; limits: 20, 14 days, 20 GB\n  c0, 10 bytes" in text


def test_table_of_an_absent_folder_is_empty(tmp_path: Path) -> None:
    assert table(tmp_path / "absent")[0].startswith("0 trainings, 0 bytes; limits:")


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (2e9, "2 GB")]
)
def test_in_bytes_chooses_the_unit(size: float, text: str) -> None:
    assert in_bytes(int(size)) == text
