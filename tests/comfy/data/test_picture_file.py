"""Training pictures in the files of phones, cameras and editors, read as their writers meant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage.color
import tifffile
import torch
import torchvision.io
from comfy_api.latest import InputImpl
from numpy.typing import NDArray
from PIL import EpsImagePlugin, Image, ImageOps
from torch import Tensor

from sandbox import photographs
from sandbox.photographs import photograph
from ziplora_core.comfy_adapter.data.picture_file import read_picture
from ziplora_core.errors import ZipLoRAError

WHITE = (255, 255, 255)
LEVEL = 1 / 255


def read(path: Path) -> Tensor:
    return read_picture(path, WHITE).pixels


def pixels_of(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(image, np.float32) / 255)[None]


def difference(a: Tensor, b: Tensor) -> float:
    """Return the mean difference of two pictures of one size, in levels of 255."""
    assert a.shape == b.shape
    return float((a - b).abs().mean()) / LEVEL


def deep_photograph() -> NDArray[np.uint16]:
    """A photograph whose lower eight bits are not a repetition of the upper ones."""
    rng = np.random.default_rng(0)
    image = np.asarray(photograph(), np.uint16) << 8
    return image + rng.integers(0, 256, image.shape, np.uint16)


def test_picture_of_a_phone_in_multi_picture_format_is_its_first_as_stock_reads_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "IMG_0001.JPG"
    photographs.save_phone_photograph(photograph(), path, quality=95, subsampling=0)
    with Image.open(path) as image:
        assert image.format == "MPO" and getattr(image, "n_frames", 1) == 2
    stock = InputImpl.VideoFromFile(str(path)).get_components().images[:1]
    assert difference(read(path), stock) < 1.5
    assert difference(read(path), pixels_of(photograph())) < 4


def as_pillow(path: Path, **options: object) -> None:
    photograph().save(path, **options)


def as_apng(path: Path) -> None:
    photographs.save_with_ffmpeg(np.asarray(photograph()), "rgb24", path, codec="apng")


def as_apng_with_default_image(path: Path) -> None:
    photograph().save(
        path, "PNG", save_all=True, default_image=True, append_images=[photograph("rocket.jpg")]
    )


def as_jpeg(path: Path) -> None:
    photograph().save(path, "JPEG", quality=95)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.jfif", as_jpeg),
        ("a.jpe", as_jpeg),
        ("a.JPG", as_jpeg),
        ("a.PNG", as_pillow),
        ("a.jp2", as_pillow),
        ("a.avif", as_pillow),
        ("a.heic", as_pillow),
        ("a.jxl", as_pillow),
        ("a.HEIF", as_pillow),
        ("a.apng", as_apng),
        ("a.png", as_apng_with_default_image),
    ],
)
def test_picture_of_every_kind_is_read(
    name: str, write: Callable[[Path], None], tmp_path: Path
) -> None:
    write(tmp_path / name)
    assert difference(read(tmp_path / name), pixels_of(photograph())) < 6


@pytest.mark.parametrize("written", ["gray16be", "ya16be", "rgb48be", "rgba64be"])
def test_png_of_16_bits_keeps_all_of_them(written: str, tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    alpha = np.full((80, 120, 1), 65535, np.uint16)
    rgba = np.concatenate([deep_photograph(), alpha], -1)
    photographs.save_with_ffmpeg(rgba, "rgba64le", path, written)
    reference = torchvision.io.decode_image(
        torchvision.io.read_file(str(path)), torchvision.io.ImageReadMode.UNCHANGED
    )
    colours = 3 if len(reference) > 2 else 1
    expected = reference[:colours].movedim(0, -1).double() / 65535
    torch.testing.assert_close(read(path)[0].double(), expected.expand(80, 120, 3))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_tiff_of_16_bits_is_turned_as_pillow_turns_8(
    orientation: int, planes: str, compression: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "deep.tif"
    turn = (274, 3, 1, orientation, True)
    pixels = deep_photograph() if planes == "contig" else deep_photograph().transpose(2, 0, 1)
    tifffile.imwrite(
        path, pixels, photometric="rgb", planarconfig=planes, compression=compression,
        extratags=[turn], metadata=None,
    )  # fmt: skip
    image = Image.fromarray((deep_photograph() >> 8).astype(np.uint8))
    image.getexif()[274] = orientation
    expected = ImageOps.exif_transpose(image)
    assert expected.size == ((120, 80) if orientation < 5 else (80, 120))
    found = read(path)
    assert not read_picture(path, WHITE).is_cut
    assert 0.2 < difference(found, pixels_of(expected)) < 0.6  # the eight lower bits


def to_srgb(rgb: Tensor, gamma: float | None, to_xyz: list[list[float]]) -> Tensor:
    """Convert by the formulas of both spaces: to linear light, to XYZ, and to sRGB."""
    encoded = rgb[0].double().numpy()
    if gamma is None:
        linear = np.where(encoded > 0.04045, ((encoded + 0.055) / 1.055) ** 2.4, encoded / 12.92)
    else:
        linear = encoded**gamma
    converted = skimage.color.xyz2rgb(linear @ np.array(to_xyz).T)
    return torch.from_numpy(converted).float()[None]


ADOBE_RGB = [
    [0.5767309, 0.1855540, 0.1881852],
    [0.2973769, 0.6273491, 0.0752741],
    [0.0270343, 0.0706872, 0.9911085],
]
DISPLAY_P3 = [
    [0.4865709, 0.2656677, 0.1982173],
    [0.2289746, 0.6917385, 0.0792869],
    [0.0000000, 0.0451134, 1.0439444],
]


def test_photograph_in_adobe_rgb_is_converted_to_srgb() -> None:
    path = photographs.FOLDER / "rocket.jpg"
    with Image.open(path) as image:
        raw = pixels_of(image.convert("RGB"))
    found = read_picture(path, WHITE)
    assert found.profile == "Adobe RGB (1998)"
    expected = to_srgb(raw, 563 / 256, ADOBE_RGB)
    assert difference(found.pixels, expected) < 0.6 and difference(raw, expected) > 3


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif", "a.avif", "a.heic"])
def test_photograph_in_display_p3_is_converted_to_srgb(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    options = {} if name.endswith(".heic") else {"quality": 95}
    photograph("chelsea.png").save(path, icc_profile=photographs.display_p3(), **options)
    with Image.open(path) as image:
        raw = pixels_of(image.convert("RGB"))
    found = read_picture(path, WHITE)
    assert found.profile == "Display P3"
    expected = to_srgb(raw, None, DISPLAY_P3)
    assert difference(found.pixels, expected) < 0.6 and difference(raw, expected) > 3


@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_photograph_of_16_bits_in_adobe_rgb_is_converted_too(planes: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    pixels = deep_photograph() if planes == "contig" else deep_photograph().transpose(2, 0, 1)
    tifffile.imwrite(
        path, np.ascontiguousarray(pixels), photometric="rgb", planarconfig=planes,
        iccprofile=photographs.adobe_rgb(),
    )  # fmt: skip
    deep = torch.from_numpy(deep_photograph() / 65535)[None]
    found = read_picture(path, WHITE)
    assert found.profile == "Adobe RGB (1998)" and found.is_cut
    assert difference(found.pixels, to_srgb(deep, 563 / 256, ADOBE_RGB)) < 1


def test_photograph_in_srgb_is_read_as_it_is() -> None:
    path = photographs.FOLDER / "astronaut.png"
    with Image.open(path) as image:
        assert image.info["icc_profile"]
        assert torch.equal(read(path), pixels_of(image.convert("RGB")))


def test_scan_in_grey_with_a_printers_profile_stays_grey_and_is_converted() -> None:
    path = photographs.FOLDER / "page.png"
    found = read_picture(path, WHITE)
    with Image.open(path) as image:
        raw = pixels_of(image.convert("RGB"))
    assert found.profile == "Dot Gain 20%" and difference(found.pixels, raw) > 1
    assert torch.equal(found.pixels[..., 0], found.pixels[..., 2])


def test_scan_of_16_bits_in_grey_is_converted_too(tmp_path: Path) -> None:
    path = photographs.FOLDER / "page.png"
    with Image.open(path) as image:
        deep, profile = np.asarray(image, np.uint16) * 257, image.info["icc_profile"]
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="minisblack", iccprofile=profile)
    found = read_picture(tmp_path / "a.tif", WHITE)
    assert found.profile == "Dot Gain 20%" and torch.equal(found.pixels, read(path))


@pytest.mark.parametrize("profile", ["grey", "damaged"])
def test_picture_with_a_profile_that_is_not_its_own_says_so(profile: str, tmp_path: Path) -> None:
    with Image.open(photographs.FOLDER / "page.png") as page:
        data = page.info["icc_profile"] if profile == "grey" else b"no profile"
    path = tmp_path / "a.png"
    photograph().save(path, icc_profile=data)
    found = read_picture(path, WHITE)
    assert found.ignored and not found.profile
    assert torch.equal(found.pixels, pixels_of(photograph()))


@pytest.mark.parametrize("colour", [WHITE, (255, 136, 0)])
def test_transparent_parts_show_the_background(colour: tuple[int, int, int]) -> None:
    path = photographs.FOLDER / "horse.png"
    found = read_picture(path, colour)
    with Image.open(path) as image:
        under = Image.new("RGBA", image.size, colour)
        expected = Image.alpha_composite(under, image.convert("RGBA")).convert("RGB")
    assert found.is_transparent
    assert float((found.pixels - pixels_of(expected)).abs().max()) <= 1.01 * LEVEL


def test_transparent_parts_keep_the_background_when_colours_are_converted(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    clear = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    clear.save(path, icc_profile=photographs.display_p3())
    found = read_picture(path, (0, 128, 255))
    assert found.profile and found.is_transparent
    assert torch.equal(found.pixels, pixels_of(Image.new("RGB", (16, 16), (0, 128, 255))))


def animation(path: Path) -> None:
    photograph().save(path, save_all=True, append_images=[photograph("rocket.jpg")])


def test_pictures_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    animation(tmp_path / "a.gif")
    animation(tmp_path / "a.tif")
    Image.new("F", (16, 16)).save(tmp_path / "b.tif")
    (tmp_path / "a.png").write_bytes(b"not a picture")
    messages = {
        "a.gif": "^a.gif: found an animation of 2 pictures",
        "a.tif": "^a.tif: found a file of 2 pages",
        "b.tif": r"^b.tif: found a picture of 32 bits a channel \(F\)",
        "a.png": "^a.png: found an unreadable file",
    }
    for name, message in messages.items():
        with pytest.raises(ZipLoRAError, match=message):
            read(tmp_path / name)


def test_picture_file_has_no_remarks_for_an_ordinary_picture(tmp_path: Path) -> None:
    photograph().save(tmp_path / "a.png")
    found = read_picture(tmp_path / "a.png", WHITE)
    assert (found.profile, found.ignored) == ("", "")
    assert not found.is_transparent and not found.is_cut


def test_postscript_under_a_pictures_name_is_refused_and_starts_no_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow reads PostScript by Ghostscript."""
    program, started = tmp_path / "gs", tmp_path / "started"
    program.write_text(f"#!/bin/sh\ntouch {started}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # it is looked for again
    Image.new("RGB", (8, 8)).save(tmp_path / "a.eps")
    disguised = (tmp_path / "a.eps").rename(tmp_path / "a.png")
    with pytest.raises(ZipLoRAError):
        read(disguised)
    assert not started.exists()
