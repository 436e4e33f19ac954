"""Captions in the files of other programs: endings, tables, encodings."""

from __future__ import annotations

import csv
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from ziplora_core.comfy_adapter.data.picture_folder import PictureFolder, read_pictures
from ziplora_core.errors import ZipLoRAError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "dogs"
    place.mkdir()
    return place


def with_pictures(folder: Path, *names: str) -> None:
    for name in names:
        Image.new("RGB", (16, 16), "teal").save(folder / name)


def written(folder: Path, texts: dict[str, str | bytes]) -> PictureFolder:
    for name, text in texts.items():
        data = text if isinstance(text, bytes) else text.encode("utf-8")
        (folder / name).write_bytes(data)
    return read_pictures(folder)


@pytest.mark.parametrize(
    ("picture", "caption"),
    [
        ("dog.png", "dog.txt"),
        ("dog.png", "dog.TXT"),
        ("dog.PNG", "dog.caption"),
        ("dog.png", "dog.Caption"),
        ("dog.png", "dog.png.txt"),
        ("dog.PNG", "dog.png.caption"),
        ("DOG.JPG", "dog.txt"),
        ("dog.v2.png", "dog.v2.txt"),
        (
            unicodedata.normalize("NFD", "Hündchen.png"),
            unicodedata.normalize("NFC", "Hündchen.txt"),
        ),
    ],
)
def test_caption_of_a_picture_is_found(picture: str, caption: str, folder: Path) -> None:
    with_pictures(folder, picture)
    read = written(folder, {caption: "  a photo of\n sks dog "})
    assert read.captions == ["a photo of sks dog"]
    assert "left out" not in read.report and "one caption each" in read.report


def test_captions_of_two_kinds_are_taken_in_order_and_the_others_named(folder: Path) -> None:
    with_pictures(folder, "Dog.png", "dog.png", "dog.jpg")
    texts = {"dog.txt": "tags", "Dog.txt": "Tags", "dog.caption": "words", "dog.jpg.txt": "jpg"}
    read = written(folder, texts)
    assert read.captions == ["Tags", "jpg", "tags"]
    assert "left out: dog.caption (dog.txt is used)" in read.report


def test_texts_of_no_picture_are_named(folder: Path) -> None:
    with_pictures(folder, "dog.png")
    read = written(folder, {"dgo.txt": "a dog", "README.txt": "all mine", "dog.npz": b"latents"})
    assert read.report.splitlines() == [
        "1 picture of 16 × 16; 3 files left out",
        "left out: README.txt (no picture has this name), dgo.txt (no picture has this name), "
        "dog.npz (not a picture)",
        "no captions: the prompt is used",
    ]


def test_captions_for_some_pictures_are_refused_and_the_stray_ones_named(folder: Path) -> None:
    with_pictures(folder, "a.png", "b.png", "c.png")
    with pytest.raises(ZipLoRAError) as refused:
        written(folder, {"a.txt": "a", "bb.txt": "b"})
    message = str(refused.value)
    assert "no caption for 2 of 3 pictures (b.png, c.png)" in message and "bb.txt" in message


def json_lines(path: Path, rows: list[dict[str, object]]) -> None:
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def comma_separated(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


TABLES = pytest.mark.parametrize(
    ("name", "write"),
    [("metadata.jsonl", json_lines), ("metadata.csv", comma_separated)],
)
Writer = Callable[[Path, list[dict[str, object]]], None]


@TABLES
@pytest.mark.parametrize("column", ["text", "caption", "additional_feature"])
def test_table_of_a_hugging_face_folder_has_the_captions(
    name: str, write: Writer, column: str, folder: Path
) -> None:
    with_pictures(folder, "0001.png", "0002.png", "é.PNG")
    rows: list[dict[str, object]] = [
        {"file_name": "0002.png", column: 'a dog, "rare", on\u2028grass'},
        {"file_name": "é.png", column: ""},
        {"file_name": "./0001.png", column: "été, 犬"},
        {"file_name": "0003.png", column: "another"},
    ]
    write(folder / name, rows)
    read = read_pictures(folder)
    assert read.captions == ["été, 犬", 'a dog, "rare", on grass', ""]
    assert f"one caption each: 3 from {name}" in read.report
    assert "captions of pictures that are not here: 0003.png" in read.report


def test_captions_beside_the_pictures_come_before_the_table(folder: Path) -> None:
    with_pictures(folder, "a.png", "b.png")
    json_lines(
        folder / "metadata.jsonl", [{"file_name": n, "text": "table"} for n in ("a.png", "b.png")]
    )
    (folder / "metadata.csv").write_text("no table")
    read = written(folder, {"a.txt": "own"})
    assert read.captions == ["own", "table"]
    assert "one caption each: 1 from .txt, 1 from metadata.jsonl" in read.report
    assert "left out: metadata.csv (metadata.jsonl is used)" in read.report
    both = written(folder, {"b.txt": "own too"})
    assert both.captions == ["own", "own too"]
    assert "metadata.jsonl (every picture has a caption of its own)" in both.report


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metadata.jsonl", '{"file_name": "a.png"', "metadata.jsonl, line 1: found no JSON"),
        ("metadata.jsonl", "[" * 100_000, "metadata.jsonl, line 1: found no JSON"),
        (
            "metadata.csv",
            f"file_name,text\na.png,{'x' * 200_000}",
            "metadata.csv, line 1: found field larger",
        ),
        (
            "metadata.jsonl",
            '["a.png", "a dog"]',
            "metadata.jsonl: found a line without",
        ),
        ("metadata.jsonl", '{"file_name": "a.png"}', "metadata.jsonl: found no captions"),
        ("metadata.csv", "file_name,x,y\na.png,1,2\n", "metadata.csv: found the columns x, y"),
        ("metadata.csv", "image,text\na.png,1\n", "metadata.csv: found a line without"),
        (
            "metadata.csv",
            "file_name,text\na.png,a dog, on grass\n",
            "metadata.csv, line 2: found more values",
        ),
        (
            "metadata.jsonl",
            '{"file_name": "a.png", "text": ["a", "b"]}',
            "metadata.jsonl, a.png: found ['a', 'b'] as 'text'",
        ),
    ],
)
def test_table_that_cannot_be_read_says_where(
    name: str, text: str, message: str, folder: Path
) -> None:
    with_pictures(folder, "a.png")
    with pytest.raises(ZipLoRAError) as refused:
        written(folder, {name: text})
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_mark_is_honoured(encoding: str, folder: Path) -> None:
    with_pictures(folder, "a.png")
    read = written(folder, {"a.txt": "ein Hündchen, 犬".encode(encoding)})
    assert read.captions == ["ein Hündchen, 犬"] and "WARNING" not in read.report


@pytest.mark.parametrize("order", ["be", "le"])
@pytest.mark.parametrize("bits", [16, 32])
def test_byte_order_mark_of_either_order_is_honoured(bits: int, order: str, folder: Path) -> None:
    with_pictures(folder, "a.png")
    data = "\ufeffein Hündchen".encode(f"utf-{bits}-{order}")
    assert written(folder, {"a.caption": data}).captions == ["ein Hündchen"]


LINES = {
    "cp1252": [
        "une photo de sks à la plage, été, forêt",
        "le chien sks est assis sur un canapé rouge près de la fenêtre",
    ],
    "cp1250": ["zdjęcie psa sks na trawie", "pies śpi w koszu obok kominka, żółty koc"],
    "cp1251": ["фото собаки sks на траве", "собака sks сидит на красном диване у окна"],
    "cp1253": ["φωτογραφία ενός σκύλου", "ο σκύλος κοιμάται στο καλάθι"],
    "gb18030": ["一张sks狗的照片", "狗坐在红色沙发上"],
    "big5": ["一張狗的照片", "狗坐在紅色沙發上"],
    "cp932": ["犬の写真", "赤いソファに座っている犬"],
}


@pytest.mark.parametrize("encoding", LINES)
def test_captions_in_another_encoding_are_read_and_the_report_names_it(
    encoding: str, folder: Path
) -> None:
    with_pictures(folder, "a.png", "b.png", "c.png")
    first, second = LINES[encoding]
    texts = {"a.txt": "a dog", "b.txt": first.encode(encoding), "c.txt": second.encode(encoding)}
    read = written(folder, texts)
    assert read.captions == ["a dog", first, second]
    warning = read.report.splitlines()[0]
    assert warning.startswith(f"WARNING: not UTF-8, read as {encoding}, which is a guess: b.txt")
    assert first in warning


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("señor gato".encode("cp1252"), "may be any of cp"),
        ("собака".encode("cp1251"), "may be any of"),
        (b"\xff\xfea", "a damaged utf-16 text"),
        ("a dog".encode("utf-16-le"), "zero bytes"),
        ("a d\ufffdg".encode(), "replacement marks"),
        (bytes(range(1, 256)), "bytes that"),
    ],
)
def test_captions_whose_encoding_cannot_be_told_are_refused(
    data: bytes, message: str, folder: Path
) -> None:
    with_pictures(folder, "a.png")
    with pytest.raises(ZipLoRAError) as refused:
        written(folder, {"a.txt": data})
    said = str(refused.value)
    assert said.startswith("a.txt: found ") and message in said and "Save it as UTF-8" in said


def test_texts_that_are_not_captions_may_have_any_encoding(folder: Path) -> None:
    with_pictures(folder, "a.png")
    read = written(folder, {"a.txt": "a dog", "licence.txt": "señor".encode("cp1252")})
    assert read.captions == ["a dog"]
