"""Sample images that stay with a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from ziplora_core.training.sample_strips import Strip, keep_strips, read_strips

STRIPS = {5: Strip(b"five", ("−2", "0", "2")), 10: Strip(b"ten", ("a dog",)), 15: Strip(b"fifteen")}


def test_kept_strips_are_read_up_to_a_step(tmp_path: Path) -> None:
    keep_strips(tmp_path, STRIPS)
    assert read_strips(tmp_path, 100) == STRIPS
    assert read_strips(tmp_path, 10) == {5: STRIPS[5], 10: STRIPS[10]}
    assert read_strips(tmp_path, 0) == read_strips(tmp_path / "none", 100) == {}


def test_keep_strips_replaces_what_is_there(tmp_path: Path) -> None:
    keep_strips(tmp_path, STRIPS)
    other = {10: Strip(b"another ten", ("a cat",)), 20: Strip(b"twenty")}
    keep_strips(tmp_path, other)
    assert read_strips(tmp_path, 100) == other
    names = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert names == ["10.jpg", "20.jpg", "captions.json"]


@pytest.mark.parametrize("text", [b"", b"[1]", b"{", b'{"5": 3}', b"[" * 100_000, b"\xff"])
def test_captions_that_cannot_be_read_are_left_out(text: bytes, tmp_path: Path) -> None:
    keep_strips(tmp_path, STRIPS)
    (tmp_path / "samples" / "captions.json").write_bytes(text)
    assert read_strips(tmp_path, 5) == {5: Strip(b"five")}


def test_files_that_are_no_strips_are_left_out_and_left_alone(tmp_path: Path) -> None:
    keep_strips(tmp_path, STRIPS)
    others = ("x.jpg", "²3.jpg", f"{'9' * 5000}.jpg"[-200:], "7.png")
    for name in others:
        (tmp_path / "samples" / name).write_bytes(b"")
    (tmp_path / "samples" / "8.jpg").mkdir()
    assert read_strips(tmp_path, 100) == STRIPS
    keep_strips(tmp_path, STRIPS)
    assert {*others} <= {path.name for path in (tmp_path / "samples").iterdir()}
