"""Setting up says what is wrong and what to do, and resumes where it stopped."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from sandbox import setup, source
from sandbox.commands import SetupError
from sandbox.stages import Stage, run_stages

TESTS = Path(__file__).resolve().parents[2]
NO_INDEX = {
    "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    "PIP_EXTRA_INDEX_URL": "",
    "PIP_FIND_LINKS": "",
    "PIP_CONFIG_FILE": os.devnull,
    "PIP_RETRIES": "0",
}
"""Nobody listens there: to pip this is a machine without a network."""


def archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def test_check_wrong_hash_removes_the_file_and_says_so(tmp_path: Path) -> None:
    damaged = tmp_path / source.TESTED.archive
    damaged.write_bytes(b"half a download")
    with pytest.raises(SetupError, match=r"found SHA-256 .* expected de5d0c32.*again") as error:
        source.check(damaged, source.TESTED.sha256)
    assert hashlib.sha256(b"half a download").hexdigest() in str(error.value)
    assert not damaged.exists()


def test_get_comfyui_wrong_archive_leaves_no_comfyui(tmp_path: Path) -> None:
    archive(
        tmp_path / source.TESTED.archive, {source.TESTED.tree + "main.py": b"not the tested one"}
    )
    with pytest.raises(SetupError, match="SHA-256"):
        source.get_comfyui(sys.executable, tmp_path, tmp_path / "ComfyUI")
    assert not (tmp_path / "ComfyUI").exists()


def test_download_without_network_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in NO_INDEX.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SetupError, match="Stopped while downloading ComfyUI") as error:
        source.download(sys.executable, tmp_path)
    assert "Run the same command again to resume" in str(error.value)
    assert "COMFYUI_PATH" in str(error.value)


def test_setup_without_network_fails_without_a_traceback(tmp_path: Path) -> None:
    environment = {**os.environ, **NO_INDEX, "ZIPLORA_SANDBOX": str(tmp_path / "sandbox")}
    for name in ("COMFYUI_PATH", "COMFYUI_PYTHON"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "sandbox.setup"]
    done = subprocess.run(command, cwd=TESTS, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Run the same command again to resume" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_unpack_after_interruption_has_only_comfyui(tmp_path: Path) -> None:
    target = tmp_path / "ComfyUI"
    leftover = tmp_path / "ComfyUI.partial"
    leftover.mkdir()
    (leftover / "half.py").touch()
    files = {"pkg/setup.py": b"", "pkg/vendor/ComfyUI/main.py": b"1", "pkg/vendor/other.py": b""}
    source.unpack(archive(tmp_path / "a.tar.gz", files), target, tree="pkg/vendor/ComfyUI/")
    assert [path.name for path in target.iterdir()] == ["main.py"]
    assert not leftover.exists()


def test_run_stages_failure_resumes_at_the_failed_stage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []
    broken = True

    def second() -> None:
        if broken:
            raise SetupError("no network")
        ran.append("second")

    def stages(key: str = "1") -> list[Stage]:
        first = Stage("first", "First", key, tmp_path, lambda: ran.append("first"))
        return [first, Stage("second", "Second", "", tmp_path, second)]

    with pytest.raises(SetupError):
        run_stages(stages(), tmp_path / "stamps")
    broken = False
    run_stages(stages(), tmp_path / "stamps")
    assert ran == ["first", "second"]

    capsys.readouterr()
    run_stages(stages(), tmp_path / "stamps")
    assert ran == ["first", "second"] and capsys.readouterr().out == ""

    run_stages(stages("2"), tmp_path / "stamps")
    assert ran == ["first", "second"] * 2


def test_run_stages_deleted_result_runs_again(tmp_path: Path) -> None:
    ran: list[str] = []
    result = tmp_path / "result"

    def make() -> None:
        ran.append("make")
        result.touch()

    stage = Stage("make", "Make", "", result, make)
    for _ in range(2):
        run_stages([stage], tmp_path / "stamps")
    assert ran == ["make"]
    result.unlink()
    run_stages([stage], tmp_path / "stamps")
    assert ran == ["make"] * 2


def test_check_machine_full_disk_says_how_much_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "SANDBOX", tmp_path)
    monkeypatch.setattr(setup, "VENV", tmp_path / "venv")
    monkeypatch.setattr(setup, "COMFYUI_PYTHON", None)
    monkeypatch.setattr(setup, "NEEDED_SPACE", 10**9 * setup.GIGABYTE)
    with pytest.raises(SetupError, match=r"Disk: found .* GB free .* ZIPLORA_SANDBOX"):
        setup.check_machine()


def test_check_machine_wrong_comfyui_path_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "COMFYUI_PATH", str(tmp_path))
    monkeypatch.setattr(setup, "COMFYUI", tmp_path)
    with pytest.raises(SetupError, match=r"COMFYUI_PATH: found no main\.py"):
        setup.check_machine()


@pytest.mark.parametrize(
    "requirement, package",
    [("torch", "torch"), ("numpy>=1.25.0", "numpy"), ("pydantic~=2.0", "pydantic")],
)
def test_package_of_requirement_is_its_name(requirement: str, package: str) -> None:
    assert setup._package(requirement) == package
