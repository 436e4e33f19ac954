"""Folders of training pictures and their captions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ...errors import problem

_PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif"}
_CAPTION = ".txt"
_UNREADABLE = (OSError, SyntaxError, ValueError, UnidentifiedImageError)


@dataclass(frozen=True)
class PictureFolder:
    """The pictures `(1, h, w, 3)` in 0…1, by name, with a caption for each, or no captions."""

    pictures: list[Tensor]
    captions: list[str]


def picture_files(folder: Path) -> list[Path]:
    """List the picture files of a folder by name."""
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in _PICTURES and not path.name.startswith(".")
    )


def caption_file(picture: Path) -> Path:
    """Return the path of a picture's caption: `dog.jpg` has `dog.txt`, or `dog.TXT`."""
    upper = picture.with_suffix(_CAPTION.upper())
    return upper if upper.exists() else picture.with_suffix(_CAPTION)


def read_pictures(folder: Path) -> PictureFolder:
    """Read every picture, with its EXIF rotation applied, transparent parts on white.

    Raises:
        ZipLoRAError: no pictures, an unreadable or animated one, or captions for only some.
    """
    files = picture_files(folder)
    if not files:
        raise problem(
            f"folder {folder.name!r}",
            found="no pictures",
            expected="pictures as .png, .jpg or .webp",
            advice="Put pictures into this folder, inside ComfyUI's input folder.",
        )
    without = [path.name for path in files if not caption_file(path).exists()]
    if without and len(without) < len(files):
        raise problem(
            f"folder {folder.name!r}",
            found=f"no caption for {len(without)} of {len(files)} pictures ({without[0]})",
            expected="a .txt of the same name beside each picture, or none at all",
            advice="Add the missing ones (an empty file stands for the prompt).",
        )
    captions = [] if without else [_caption(caption_file(path)) for path in files]
    return PictureFolder([_picture(path) for path in files], captions)


def _caption(path: Path) -> str:
    return " ".join(path.read_text("utf-8-sig", "replace").split())


def _picture(path: Path) -> Tensor:
    try:
        with Image.open(path) as image:
            frames = getattr(image, "n_frames", 1)
            mode = image.mode
            turned = ImageOps.exif_transpose(image)
            turned.load()
    except (*_UNREADABLE, Image.DecompressionBombError) as error:
        raise _unusable(path, f"an unreadable file ({error})") from error
    if frames > 1:
        raise _unusable(path, f"an animation of {frames} pictures")
    if mode.startswith(("I", "F")):  # 16 or 32 bits: conversion would clip them
        raise _unusable(path, f"a picture of more than 8 bits a channel ({mode})")
    turned = turned.convert("RGBA")
    white = Image.new("RGBA", turned.size, "white")
    pixels = np.asarray(Image.alpha_composite(white, turned).convert("RGB"), np.float32)
    return torch.from_numpy(pixels / 255)[None]


def _unusable(path: Path, found: str) -> Exception:
    return problem(
        path.name,
        found=found,
        expected="a still picture of 8 bits a channel",
        advice="Save it again as .png or .jpg, or take it out of the folder.",
    )
