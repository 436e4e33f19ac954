"""Photographs of scikit-image, and files as phones and other programs write them."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import av
import pillow_heif
import skimage
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms

pillow_heif.register_heif_opener()  # writes .heic

FOLDER = Path(skimage.__file__).parent / "data"
DISPLAY_P3 = {
    "rXYZ": (0.51512, 0.24120, -0.00105),
    "gXYZ": (0.29198, 0.69225, 0.04189),
    "bXYZ": (0.15710, 0.06657, 0.78407),
}
"""The primaries of Apple's Display P3, which iPhones write, adapted to D50."""


def photograph(name: str = "coffee.png", size: tuple[int, int] = (120, 80)) -> Image.Image:
    """Open a photograph of scikit-image, scaled down."""
    with Image.open(FOLDER / name) as image:
        return image.convert("RGB").resize(size)


def display_p3() -> bytes:
    """Return Display P3's profile: sRGB's, which has the same curve, with other primaries."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    (count,) = struct.unpack_from(">I", profile, 128)
    for entry in range(132, 132 + 12 * count, 12):
        tag, offset, _ = struct.unpack_from(">4sII", profile, entry)
        if xyz := DISPLAY_P3.get(tag.decode()):
            struct.pack_into(">3i", profile, offset + 8, *(round(65536 * x) for x in xyz))
    name, other = (text.encode("utf-16-be") for text in ("sRGB built-in", "Display P3   "))
    return bytes(profile).replace(name, other)


def adobe_rgb() -> bytes:
    """Return the profile Adobe RGB (1998) of a photograph."""
    with Image.open(FOLDER / "rocket.jpg") as image:
        return image.info["icc_profile"]


def turned(orientation: int) -> Image.Exif:
    """Make the EXIF data of a camera held in one of eight ways."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


def save_phone_photograph(image: Image.Image, path: Path, **options: Any) -> None:
    """Write a Multi-Picture file with a preview as its second picture, as phones do."""
    preview = image.resize((image.width // 2, image.height // 2))
    image.save(path, "MPO", save_all=True, append_images=[preview], **options)


def save_with_ffmpeg(
    pixels: NDArray[Any], layout: str, path: Path, written: str = "", codec: str = "png"
) -> None:
    """Write one picture with FFmpeg, which also writes PNGs of 16 bits a channel, and APNGs.

    Args:
        pixels: the picture, in FFmpeg's `layout`.
        layout: rgb24, rgb48le, rgba64le or gray16le.
        path: the file.
        written: the layout in the file, if it is another.
        codec: png or apng.
    """
    frame = av.VideoFrame.from_ndarray(pixels, layout).reformat(format=written or layout)
    frame.pts = 0
    with av.open(str(path), "w", format="apng" if codec == "apng" else "image2") as container:
        stream: Any = container.add_stream(codec, rate=1)
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, frame.format.name
        for packet in (*stream.encode(frame), *stream.encode()):
            container.mux(packet)
