"""Fingerprints follow a file's content, whatever its size and time say."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ziplora_core.files.fingerprint import fingerprint


def replaced_in_place(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def replaced_by_another(path: Path, data: bytes) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(data)
    os.replace(other, path)


@pytest.mark.parametrize("replace", [replaced_in_place, replaced_by_another])
@pytest.mark.parametrize("pause", [0.0, 2.1], ids=["at once", "after two seconds"])
def test_fingerprint_of_another_content_of_the_same_size_and_time_differs(
    replace: object, pause: float, tmp_path: Path
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    os.utime(path, ns=(10**18, 10**18))
    time.sleep(pause)  # a file that has just changed is not remembered, an older one is
    before = fingerprint(path)
    assert fingerprint(path) == before
    replace(path, b"two")  # type: ignore[operator]
    os.utime(path, ns=(10**18, 10**18))
    assert fingerprint(path) != before


def test_fingerprint_of_the_same_content_is_the_same(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "ab"]
    for path in paths:
        path.write_bytes(b"x" * 3_000_000)
    assert fingerprint(paths[0]) == fingerprint(paths[1])


@pytest.mark.skipif(os.name == "nt", reason="no file's state is remembered on Windows")
def test_fingerprint_of_a_large_file_is_computed_once(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(300_000_000)
    os.utime(path)
    time.sleep(2.1)
    started = time.perf_counter()
    fingerprint(path)
    first = time.perf_counter() - started
    started = time.perf_counter()
    fingerprint(path)
    assert time.perf_counter() - started < first / 50


@pytest.mark.parametrize("name", ["absent", "."])
def test_fingerprint_of_what_is_no_file_is_none(name: str, tmp_path: Path) -> None:
    assert fingerprint(tmp_path / name) is None
