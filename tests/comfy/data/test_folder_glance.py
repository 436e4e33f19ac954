"""The page is told what a folder of training pictures holds, and gets thumbnails of pictures."""

from __future__ import annotations

import io
from pathlib import Path

import folder_paths
import numpy as np
import pytest
from PIL import Image

from ziplora_core.comfy_adapter.data import folder_glance as module
from ziplora_core.comfy_adapter.data import thumbnail as thumbnails
from ziplora_core.comfy_adapter.data.folder_glance import folder_glance, folder_picture
from ziplora_core.comfy_adapter.data.thumbnail import LONGEST, thumbnail


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of six pictures with captions in ComfyUI's input folder."""
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path))
    place = tmp_path / "dogs"
    place.mkdir()
    for n in range(6):
        Image.new("RGB", (30, 20), (40 * n, 0, 0)).save(place / f"{n}.png")
        (place / f"{n}.txt").write_text(f"dog  {n}\n", "utf-8")
    return place


def test_glance_shows_the_first_pictures_with_their_captions(folder: Path) -> None:
    said = folder_glance("dogs")
    assert (said["count"], said["problem"]) == (6, "")
    assert [(p["name"], p["caption"]) for p in said["pictures"]] == [
        (f"{n}.png", f"dog {n}") for n in range(4)
    ]
    assert all(p["version"] for p in said["pictures"])
    picture = folder_picture("dogs", "3.png")
    assert picture and Image.open(io.BytesIO(picture)).size == (30, 20)


def test_captions_that_a_run_would_refuse_are_named_before_it(folder: Path) -> None:
    (folder / "5.txt").unlink()
    said = folder_glance("dogs")
    assert "no caption for 1 of 6 pictures (5.png)" in said["problem"]
    assert [p["caption"] for p in said["pictures"]] == [""] * 4


def test_more_text_than_captions_have_is_not_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_TEXT", 10)
    said = folder_glance("dogs")
    assert {p["caption"] for p in said["pictures"]} == {""} and said["problem"] == ""


def test_names_lead_only_to_pictures_of_folders_of_the_list(folder: Path) -> None:
    (folder / "notes.md").write_text("mine")
    (folder.parent / "alone.png").write_bytes((folder / "0.png").read_bytes())
    for name in ("..", ".", "", "/", str(folder), "dogs/..", "\0", "x" * 5000):
        assert "no such folder" in folder_glance(name)["problem"]
        assert folder_picture(name, "alone.png") is None
    for picture in ("../alone.png", "notes.md", "0.txt", str(folder / "0.png"), "", "\0"):
        assert folder_picture("dogs", picture) is None


def test_thumbnail_is_upright_on_white_and_small(tmp_path: Path) -> None:
    image = Image.new("RGBA", (2000, 1000), (0, 0, 0, 0))
    exif = image.getexif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "a.png", exif=exif)
    small = _opened(thumbnail(tmp_path / "a.png"))
    assert small.size == (LONGEST // 2, LONGEST)
    assert np.asarray(small).min() > 250


def test_thumbnail_of_sixteen_bits_keeps_its_greys(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64, dtype=np.uint16)[None].repeat(8, 0)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    greys = np.asarray(_opened(thumbnail(tmp_path / "a.png")).convert("L"))[4]
    assert greys[0] < 10 and abs(int(greys[32]) - 130) < 10 and greys[-1] > 245


def test_thumbnail_of_what_is_too_large_or_no_picture_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    Image.new("L", (300, 300)).save(path)
    monkeypatch.setattr(thumbnails, "MAX_PIXELS", 300 * 300 - 1)
    assert thumbnail(path) is None
    monkeypatch.setattr(thumbnails, "MAX_BYTES", 10)
    assert thumbnail(path) is None
    script = tmp_path / "b.png"
    script.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")  # starts a program
    assert thumbnail(script) is None is thumbnail(tmp_path) is thumbnail(tmp_path / "none.png")


def _opened(jpeg: bytes | None) -> Image.Image:
    assert jpeg
    image = Image.open(io.BytesIO(jpeg))
    assert image.format == "JPEG"
    return image
