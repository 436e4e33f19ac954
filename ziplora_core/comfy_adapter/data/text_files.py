"""Text files as other programs write them: byte-order marks, and encodings other than UTF-8."""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from charset_normalizer import from_bytes

from ...errors import ZipLoRAError, problem

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_CODE_PAGES = (
    "cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258",
    "cp874", "gb18030", "big5", "cp932", "cp949",
)  # fmt: skip
"""The encodings in which Windows programs save text, Western Europe's first."""
_REPLACEMENT = "\ufffd"


@dataclass(frozen=True)
class Texts:
    """The texts of files.

    Args:
        by_file: the text of each file.
        guessed: the files that are not in Unicode, read by a detected encoding.
        encoding: that encoding; empty if all are in Unicode.
    """

    by_file: dict[Path, str]
    guessed: list[Path]
    encoding: str = ""


def read_texts(paths: Iterable[Path]) -> Texts:
    """Read texts in Unicode, and all others in the one encoding that fits them best together.

    One folder usually comes from one computer, and a single line is too short to be recognised.

    Raises:
        ZipLoRAError: a file is not text, or its encoding cannot be told.
    """
    data = {path: path.read_bytes() for path in paths}
    unicode = {path: _unicode(path, content) for path, content in data.items()}
    texts = {path: text for path, text in unicode.items() if text is not None}
    guessed = [path for path in data if path not in texts]
    encoding = ""
    if guessed:
        encoding = _detected(guessed[0], b"\n".join(data[path] for path in guessed))
        texts |= {path: data[path].decode(encoding) for path in guessed}
    for path, text in texts.items():
        if _REPLACEMENT in text:
            raise _unreadable(path, f"replacement marks ({_REPLACEMENT}) in the place of letters")
    return Texts(texts, guessed, encoding)


def _unicode(path: Path, data: bytes) -> str | None:
    """Decode by the byte-order mark, or as UTF-8; None if it is neither."""
    mark = next((mark for mark in _MARKS if data.startswith(mark)), None)
    try:
        text = data.decode(_MARKS[mark] if mark else "utf-8")
    except UnicodeDecodeError as error:
        if mark:
            raise _unreadable(path, f"a damaged {_MARKS[mark]} text ({error.reason})") from error
        return None
    if "\0" in text:
        raise _unreadable(path, "zero bytes, and no byte-order mark")
    return text


def _detected(path: Path, data: bytes) -> str:
    """Detect the encoding of `data`, which begins with the file of `path`.

    Raises:
        ZipLoRAError: no encoding fits, or several do equally well and give different texts.
    """
    matches = from_bytes(data, cp_isolation=list(_CODE_PAGES))
    best = matches.best()
    if best is None:
        raise _unreadable(path, "bytes that are neither UTF-8 nor of a known code page")
    as_good = [m for m in matches if m.chaos <= best.chaos and m.coherence >= best.coherence]
    if len({str(match) for match in as_good}) > 1:
        names = ", ".join(match.encoding for match in as_good)
        raise _unreadable(path, f"bytes that are not UTF-8 and may be any of {names}")
    return next(page for page in _CODE_PAGES if page in best.could_be_from_charset)


def _unreadable(path: Path, found: str) -> ZipLoRAError:
    return problem(
        path.name,
        found=found,
        expected="text in UTF-8",
        advice="Save it as UTF-8 (in Windows' Notepad: Save as, Encoding).",
    )
