"""Captions in files beside the pictures, or in one table for the whole folder."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import problem
from .caption_table import TABLES, folded, read_table
from .text_files import Texts, read_texts

_ENDINGS = (".txt", ".caption")
"""The endings of a picture's own caption; the second is kohya's default."""


@dataclass(frozen=True)
class FolderCaptions:
    """The captions of a folder.

    Args:
        captions: the caption of each picture, in their order; empty if there are none.
        sources: how many captions are from what: `.txt`, `.caption` or a table's name.
        absent: the pictures that the table names and the folder lacks.
        left_out: the caption files that are not used, with the reason.
        texts: the texts as they were read.
    """

    captions: list[str]
    sources: Mapping[str, int]
    absent: list[str]
    left_out: dict[Path, str]
    texts: Texts


def is_caption(path: Path) -> bool:
    """Tell by its name whether a file holds captions."""
    return path.suffix.lower() in _ENDINGS or path.name.lower() in TABLES


def find_captions(folder: Path, pictures: Sequence[Path], others: Sequence[Path]) -> FolderCaptions:
    """Find the caption of every picture.

    `dog.jpg` has `dog.jpg.txt`, `dog.txt`, `dog.jpg.caption` or `dog.caption`, the first of these
    that exists, or else its line in `metadata.jsonl` or `metadata.csv`.

    Args:
        folder: the folder.
        pictures: its pictures.
        others: its other files.

    Raises:
        ZipLoRAError: captions for only some pictures, or an unreadable file.
    """
    texts = [path for path in others if path.suffix.lower() in _ENDINGS]
    tables = [path for name in TABLES for path in others if path.name.lower() == name]
    by_name: dict[str, list[Path]] = defaultdict(list)
    for path in texts:
        by_name[folded(path.name)].append(path)
    beside = {picture: _beside(picture, by_name) for picture in pictures}
    own = {picture: found[0] for picture, found in beside.items() if found}
    used = tables[:1] if len(own) < len(pictures) else []
    read = read_texts([*dict.fromkeys(own.values()), *used])
    found = {picture: read.by_file[path] for picture, path in own.items()}
    sources = Counter(path.suffix.lower() for path in own.values())
    listed = read_table(used[0], read.by_file[used[0]]) if used else {}
    for picture in pictures:
        if picture not in found and folded(picture.name) in listed:
            found[picture] = listed[folded(picture.name)]
            sources[used[0].name] += 1
    left_out = _unused(texts, beside) | {
        table: f"{used[0].name} is used" if used else "every picture has a caption of its own"
        for table in tables[len(used) :]
    }
    _refuse_some(folder, [p for p in pictures if p not in found], len(pictures), left_out)
    here = {folded(picture.name) for picture in pictures}
    absent = [name for name in listed if name not in here]
    captions = [" ".join(found[picture].split()) for picture in pictures if found]
    return FolderCaptions(captions, sources, absent, left_out, read)


def _beside(picture: Path, texts: Mapping[str, Sequence[Path]]) -> list[Path]:
    """List the caption files of a picture, the first choice first.

    An exact name comes before one that differs in capitals, or in how accents are stored.
    """
    found: dict[Path, None] = {}
    for ending in _ENDINGS:
        for name in (picture.name, picture.stem):
            alike = texts.get(folded(name + ending), ())
            found |= dict.fromkeys(sorted(alike, key=lambda path: path.stem != name))
    return list(found)


def _unused(texts: Sequence[Path], beside: Mapping[Path, Sequence[Path]]) -> dict[Path, str]:
    """Say of every caption file that is not used why."""
    used = {found[0] for found in beside.values() if found}
    instead = {path: found[0].name for found in beside.values() for path in found[1:]}
    return {
        path: f"{instead[path]} is used" if path in instead else "no picture has this name"
        for path in texts
        if path not in used
    }


def _refuse_some(
    folder: Path, without: Sequence[Path], pictures: int, left_out: Mapping[Path, str]
) -> None:
    """Refuse captions for only some pictures."""
    if not 0 < len(without) < pictures:
        return
    lost = ", ".join(path.name for path in left_out)
    raise problem(
        f"folder {folder.name!r}",
        found=f"no caption for {len(without)} of {pictures} pictures "
        f"({', '.join(path.name for path in without)})"
        + (f", and captions that are not used ({lost})" if lost else ""),
        expected="a .txt or .caption file of the same name beside each picture, a line for each in "
        f"{' or '.join(TABLES)}, or none at all",
        advice="Add the missing ones (an empty file stands for the prompt).",
    )
