"""Folders of training pictures: what is read, and what the report says of the rest."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from sandbox import photographs
from sandbox.photographs import photograph
from ziplora_core.comfy_adapter.data.picture_folder import read_pictures
from ziplora_core.errors import ZipLoRAError


def test_folder_of_every_kind_of_file_names_all_that_is_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / "masks").mkdir(parents=True)
    photographs.save_phone_photograph(photograph(), folder / "phone.JPG")
    photograph().save(folder / "iphone.HEIC")
    (folder / "screen.svgz").write_bytes(b"\x1f\x8b")
    (folder / "screen.txt").write_text("a screen")
    (folder / "camera.dng").write_bytes(b"raw")
    (folder / "drawing.svg").write_text("<svg/>")
    shutil.copy(photographs.FOLDER / "rocket.jpg", folder / "saved_without_ending")
    (folder / "notes.txt").write_text("mine")
    (folder / "phone.npz").write_bytes(b"latents")
    (folder / "moved.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    for name in (".DS_Store", "._phone.JPG", "Thumbs.db"):
        (folder / name).write_bytes(b"of the system")
    read = read_pictures(folder)
    assert len(read.pictures) == 2 and read.captions == []
    assert read.report.splitlines() == [
        "WARNING: left out, though it looks like a picture: camera.dng (.dng is not read: save it "
        "as .jpg or .png), drawing.svg (.svg is not read: save it as .jpg or .png), "
        "moved.jpg (a link to nothing), saved_without_ending (JPEG by its content: give it that "
        "ending), screen.svgz (.svgz is not read: save it as .jpg or .png)",
        "2 pictures of 120 × 80; 8 files left out",
        "left out: notes.txt (no picture has this name), phone.npz (not a picture), screen.txt "
        "(its picture is left out)",
        "folders inside are not read: masks",
        "no captions: the prompt is used",
    ]


def test_folder_says_which_colours_it_changed(tmp_path: Path) -> None:
    shutil.copy(photographs.FOLDER / "rocket.jpg", tmp_path)
    shutil.copy(photographs.FOLDER / "horse.png", tmp_path)
    with Image.open(photographs.FOLDER / "page.png") as page:
        photograph().save(tmp_path / "wrong.png", icc_profile=page.info["icc_profile"])
    report = read_pictures(tmp_path, "#FF8800").report.splitlines()
    assert report[0] == (
        "WARNING: colour profile not used, colours taken as sRGB: wrong.png (it is one of GRAY "
        "colours)"
    )
    assert "colours converted to sRGB: rocket.jpg (Adobe RGB (1998))" in report
    assert "transparent parts laid on #FF8800: horse.png" in report


def test_folder_says_which_picture_lost_its_16_bits(tmp_path: Path) -> None:
    """FFmpeg has no LZMA."""
    deep = np.asarray(photograph(), np.uint16) << 8
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="rgb", compression="lzma")
    assert "16 bits a channel cut to 8: a.tif" in read_pictures(tmp_path).report


def test_folder_of_lookalikes_only_says_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.svg").write_text("<svg/>")
    with pytest.raises(ZipLoRAError, match=r"found no pictures, but a.svg \(.svg is not read"):
        read_pictures(tmp_path)


def test_background_that_is_no_colour_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ZipLoRAError, match="background: found 'chartreuze', expected a colour"):
        read_pictures(tmp_path, "chartreuze")
