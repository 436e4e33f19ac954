"""Folders of training pictures and their captions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ...errors import problem
from ...files.fingerprint import fingerprint
from ...training.report import compose
from .caption_files import FolderCaptions, find_captions, is_caption
from .caption_table import folded
from .picture_file import PictureFile, parse_colour, read_picture
from .picture_kinds import is_read, why_no_picture

_SYSTEM = ("thumbs.db", "desktop.ini", "__macosx")


@dataclass(frozen=True)
class PictureFolder:
    """The pictures and captions that were read from a folder.

    Args:
        pictures: the pictures `(1, h, w, 3)` in 0…1, by name.
        captions: the caption of each, or none.
        report: what was read and how, and what was left out and why.
    """

    pictures: list[Tensor]
    captions: list[str]
    report: str


def files_of(folder: Path) -> list[Path]:
    """List the files and folders in a folder by name, without hidden ones."""
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and path.name.lower() not in _SYSTEM
    )


def folder_fingerprint(folder: Path) -> list[object]:
    """Return a value that changes with what `read_pictures` reads: names, pictures and captions.

    The other files, which may be of any size, count by size and time.
    """
    found: list[object] = []
    for path in files_of(folder):
        if is_read(path) or is_caption(path):
            found.append([path.name, fingerprint(path)])
        elif path.is_file():
            stat = path.stat()
            found.append([path.name, stat.st_mtime_ns, stat.st_size])
    return found


def read_pictures(folder: Path, background: str = "#ffffff") -> PictureFolder:
    """Read every picture of a folder and its caption.

    Args:
        folder: the folder; folders inside are not read.
        background: the colour under transparent parts.

    Raises:
        ZipLoRAError: no pictures, an unreadable or animated one, or captions for only some.
    """
    colour = parse_colour(background)
    files = [path for path in files_of(folder) if not path.is_dir()]
    pictures = [path for path in files if is_read(path) and path.exists()]
    others = sorted({*files} - {*pictures})
    found = find_captions(folder, pictures, [path for path in others if path.exists()])
    unread = {path: why_no_picture(path) for path in others if path not in found.texts.by_file}
    lookalikes = {path: why for path, (looks, why) in unread.items() if looks}
    left_out = {path: found.left_out.get(path, why) for path, (_, why) in unread.items()}
    left_out |= _companions(left_out, lookalikes)
    if not pictures:
        raise problem(
            f"folder {folder.name!r}",
            found="no pictures" + (f", but {_named(lookalikes)}" if lookalikes else ""),
            expected="pictures as .png, .jpg or .webp",
            advice="Put pictures into this folder, inside ComfyUI's input folder.",
        )
    read = {path: read_picture(path, colour) for path in pictures}
    lines = [
        _count_line(list(read.values()), len(left_out)),
        *_left_out_lines(folder, left_out, lookalikes),
        *_caption_lines(found),
        *_colour_lines(read, background),
    ]
    pixels = [picture.pixels for picture in read.values()]
    return PictureFolder(pixels, found.captions, compose(lines))


def _companions(left_out: Iterable[Path], pictures: Collection[Path]) -> dict[Path, str]:
    """Find the captions of pictures that are left out."""
    names = {folded(picture.stem) for picture in pictures}
    others = [path for path in left_out if path not in pictures]
    return {path: "its picture is left out" for path in others if folded(path.stem) in names}


def _count_line(pictures: Sequence[PictureFile], left_out: int) -> str:
    sizes = sorted({f"{p.pixels.shape[2]} × {p.pixels.shape[1]}" for p in pictures})
    line = f"{_counted(len(pictures), 'picture')} of {', '.join(sizes)}"
    return line + (f"; {_counted(left_out, 'file')} left out" if left_out else "")


def _left_out_lines(
    folder: Path, left_out: Mapping[Path, str], lookalikes: Mapping[Path, str]
) -> list[str]:
    """Name every file that is not used, and why; those that look like pictures first."""
    lines = []
    if lookalikes:
        lines.append(f"WARNING: left out, though it looks like a picture: {_named(lookalikes)}")
    others = {path: why for path, why in left_out.items() if path not in lookalikes}
    if others:
        lines.append(f"left out: {_named(others)}")
    if inside := [path.name for path in files_of(folder) if path.is_dir()]:
        lines.append(f"folders inside are not read: {', '.join(inside)}")
    return lines


def _caption_lines(found: FolderCaptions) -> list[str]:
    """Say where the captions are from, and in which encoding if it was guessed."""
    lines = []
    if guessed := found.texts.guessed:
        names = ", ".join(path.name for path in guessed)
        lines.append(
            f"WARNING: not UTF-8, read as {found.texts.encoding}, which is a guess: {names}. The "
            f"first one says: {' '.join(found.texts.by_file[guessed[0]].split())}"
        )
    sources = [f"{count} from {source}" for source, count in found.sources.items()]
    if not found.captions:
        lines.append("no captions: the prompt is used")
    elif set(found.sources) == {".txt"}:
        lines.append("one caption each")
    else:
        lines.append(f"one caption each: {', '.join(sources)}")
    if found.absent:
        lines.append(f"captions of pictures that are not here: {', '.join(found.absent)}")
    return lines


def _colour_lines(read: Mapping[Path, PictureFile], background: str) -> list[str]:
    """Say of which pictures the colours were changed."""
    converted = {path: p.profile for path, p in read.items() if p.profile}
    ignored = {path: p.ignored for path, p in read.items() if p.ignored}
    transparent = [path.name for path, p in read.items() if p.is_transparent]
    cut = [path.name for path, p in read.items() if p.is_cut]
    lines = []
    if converted:
        lines.append(f"colours converted to sRGB: {_named(converted)}")
    if ignored:
        lines.append(f"WARNING: colour profile not used, colours taken as sRGB: {_named(ignored)}")
    if transparent:
        lines.append(f"transparent parts laid on {background}: {', '.join(transparent)}")
    if cut:
        lines.append(f"16 bits a channel cut to 8: {', '.join(cut)}")
    return lines


def _named(why: Mapping[Path, str]) -> str:
    return ", ".join(f"{path.name} ({reason})" for path, reason in why.items())


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"
