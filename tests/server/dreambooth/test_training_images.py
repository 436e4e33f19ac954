"""Folders as people bring them, from Load Training Images to Train DreamBooth LoRA."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import tifffile
import torch
from PIL import Image

from sandbox import photographs
from sandbox.photographs import photograph
from sandbox.server import ComfyServer

from ..graph import Graph, report, saved_path, succeeded
from .test_train import metadata_of, refused, save, train

WIDE, TALL = "120 × 80", "80 × 120"


def new_folder(server: ComfyServer, name: str) -> Path:
    place = server.base / "input" / name
    place.mkdir(parents=True)
    return place


def told(server: ComfyServer, place: Path, **inputs: Any) -> str:
    """Return the report of Load Training Images."""
    graph = Graph()
    read = graph.node("LoadTrainingImages", folder=place.name, **inputs)
    graph.node("PreviewAny", source=[read, 2])
    return report(succeeded(server, graph), read)


def fill_with_photographs(place: Path) -> None:
    """Write eight photographs as phones, cameras and editors do, held upright or sideways."""
    sideways = photographs.turned(6)
    photographs.save_phone_photograph(photograph(), place / "android.jpg", exif=sideways)
    photographs.save_phone_photograph(
        photograph("rocket.jpg"), place / "IPHONE.JPG", icc_profile=photographs.display_p3()
    )
    photograph("chelsea.png").save(
        place / "iphone.HEIC", exif=sideways, icc_profile=photographs.display_p3()
    )
    photograph().save(place / "saved.jfif", "JPEG", exif=photographs.turned(3))
    photograph().save(place / "archive.jp2")
    deep = np.asarray(photograph("astronaut.png"), np.uint16) << 8
    tifffile.imwrite(
        place / "editor.tif", deep, photometric="rgb", iccprofile=photographs.adobe_rgb()
    )
    photographs.save_with_ffmpeg(deep, "rgb48le", place / "deep.png", "rgb48be")
    shutil.copy(photographs.FOLDER / "horse.png", place)


def test_photographs_of_phones_and_cameras_are_trained_on_upright_and_in_srgb(
    server: ComfyServer,
) -> None:
    place = new_folder(server, "photographs")
    fill_with_photographs(place)
    (place / "raw.dng").write_bytes(b"raw")
    graph = Graph()
    read = graph.node("LoadTrainingImages", folder=place.name, background="#00ff00")
    trained = train(graph, [read, 0], captions=[read, 1], steps=2, seed=51)
    graph.node("PreviewAny", source=[trained, 2])
    shown = graph.node("SaveImage", images=[read, 0], filename_prefix="photographs")
    result = succeeded(server, graph)
    lines = report(result, read).splitlines()
    assert lines[0].startswith("WARNING: left out, though it looks like a picture: raw.dng")
    assert lines[1] == f"8 pictures of {WIDE}, 400 × 328, {TALL}; 1 file left out"
    assert (
        "colours converted to sRGB: IPHONE.JPG (Display P3), editor.tif (Adobe RGB (1998)), "
        "iphone.HEIC (Display P3)"
    ) in lines
    assert "transparent parts laid on #00ff00: horse.png" in lines
    assert "LoRA of 8 pictures" in report(result, trained)

    saved = [server.output / file["filename"] for file in result.outputs[shown]["images"]]
    opened = dict(
        zip(sorted(p.name for p in place.iterdir() if p.suffix != ".dng"), saved, strict=True)
    )
    with Image.open(place / "horse.png") as horse:
        green = Image.new("RGBA", horse.size, "#00ff00")
        on_green = Image.alpha_composite(green, horse.convert("RGBA")).convert("RGB")
    expected = {
        "android.jpg": photograph().transpose(Image.Transpose.ROTATE_270),
        "saved.jfif": photograph().transpose(Image.Transpose.ROTATE_180),
        "archive.jp2": photograph(),
        "deep.png": photograph("astronaut.png"),
        "horse.png": on_green,
    }
    for name, upright in expected.items():
        with Image.open(opened[name]) as image:
            found = np.asarray(image.convert("RGB"), np.float32)
        assert np.abs(found - np.asarray(upright, np.float32)).mean() < 8, name


Files = dict[str, bytes]


@pytest.mark.parametrize(
    ("name", "files", "captions", "said"),
    [
        (
            "kohya",
            {"a.caption": b"sks dog", "B.PNG.TXT": b"a cat"},
            ["a cat", "sks dog"],
            "one caption each: 1 from .txt, 1 from .caption",
        ),
        (
            "hugging_face",
            {"metadata.jsonl": "".join(
                json.dumps({"file_name": n, "text": t}) + "\n"
                for n, t in (("a.png", "sks dog"), ("B.PNG", "a cat"))
            ).encode()},
            ["a cat", "sks dog"],
            "one caption each: 2 from metadata.jsonl",
        ),
        (
            "spreadsheet",
            {"metadata.csv": "file_name,text\na.png,sks dog\nB.PNG,a cat\n".encode("utf-16")},
            ["a cat", "sks dog"],
            "one caption each: 2 from metadata.csv",
        ),
        (
            "notepad",
            {"a.txt": "犬".encode("utf-16"), "B.txt": "犬の写真".encode("utf-8-sig")},
            ["犬の写真", "犬"],
            "one caption each",
        ),
        (
            "old_windows",
            {"a.txt": "犬の写真".encode("cp932"), "B.txt": "赤いソファの犬".encode("cp932")},
            ["赤いソファの犬", "犬の写真"],
            "WARNING: not UTF-8, read as cp932, which is a guess: B.txt, a.txt",
        ),
    ],
)  # fmt: skip
def test_captions_of_other_tools_arrive_as_they_were_written(
    name: str, files: Files, captions: list[str], said: str, server: ComfyServer
) -> None:
    place = new_folder(server, name)
    for picture in ("a.png", "B.PNG"):
        photograph().save(place / picture)
    for file, data in files.items():
        (place / file).write_bytes(data)
    graph = Graph()
    read = graph.node("LoadTrainingImages", folder=place.name)
    shown = graph.node("PreviewAny", source=[read, 1])
    result = succeeded(server, graph)
    assert [result.outputs[shown]["text"][n] for n in range(2)] == captions
    assert said in report(result, read)


def test_texts_that_cannot_be_read_or_belong_to_no_picture_are_named(server: ComfyServer) -> None:
    place = new_folder(server, "strays")
    photograph().save(place / "dog.png")
    (place / "dgo.txt").write_text("sks dog")
    assert "left out: dgo.txt (no picture has this name)" in told(server, place)
    (place / "dog.txt").write_bytes("señor gato".encode("cp1252"))
    graph = Graph()
    graph.node("PreviewAny", source=[graph.node("LoadTrainingImages", folder=place.name), 2])
    assert refused(server, graph).startswith("dog.txt: found bytes that are not UTF-8")


def lora_of(server: ComfyServer, caption: str, literal: bool) -> tuple[dict[str, str], Any, str]:
    """Train on one picture; return the metadata, the tensors and the report."""
    graph = Graph()
    images = graph.out("EmptyImage", width=64, height=64, batch_size=1, color=0x884422)
    captions = graph.out("PrimitiveStringMultiline", value=caption)
    trained = train(graph, images, captions=captions, steps=2, seed=52, literal_captions=literal)
    saved = save(graph, trained, "literal/m")
    graph.node("PreviewAny", source=[trained, 2])
    result = succeeded(server, graph)
    path = saved_path(result, saved)
    return metadata_of(path), safetensors.torch.load_file(path), report(result, trained)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.thorough
def test_name_in_brackets_is_learned_as_the_prompt_with_escaped_brackets(
    server: ComfyServer,
) -> None:
    metadata, literal, said = lora_of(server, "miku (vocaloid)", literal=True)
    _, escaped, _ = lora_of(server, r"miku \(vocaloid\)", literal=False)
    _, emphasised, _ = lora_of(server, "miku (vocaloid)", literal=False)
    assert same(literal, escaped) and not same(literal, emphasised)
    assert "literal_captions" not in said
    assert r"miku \\(vocaloid\\)" in metadata["ss_tag_frequency"]
    _, _, said = lora_of(server, "miku (vocaloid:1.3)", literal=True)
    assert "caption 'miku (vocaloid:1.3)' is learned as it is written" in said
