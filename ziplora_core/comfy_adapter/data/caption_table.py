"""Tables of captions, as Hugging Face image folders have them."""

from __future__ import annotations

import csv
import json
import unicodedata
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from ...errors import ZipLoRAError, problem

TABLES = ("metadata.jsonl", "metadata.csv")
_PICTURE = "file_name"
_CAPTION = ("text", "caption", "prompt")


def folded(name: str) -> str:
    """Write a file's name so that capitals and the storage of accents make no difference."""
    return unicodedata.normalize("NFC", name).casefold()


def read_table(table: Path, text: str) -> dict[str, str]:
    """Read the caption of each picture, by its `folded` name.

    Args:
        table: the file, for its kind and for messages.
        text: its text: a JSON object a line, or comma-separated values with a head line.

    Raises:
        ZipLoRAError: a damaged table, or one without pictures or captions.
    """
    read = _json_lines if table.suffix.lower() == ".jsonl" else _values
    rows = read(table, text)
    if not all(isinstance(row, dict) and isinstance(row.get(_PICTURE), str) for row in rows):
        raise problem(
            table.name,
            found=f"a line without {_PICTURE!r}",
            expected="the name of a picture and its caption in each line",
            advice=f'Write {{"{_PICTURE}": "dog.jpg", "text": "…"}}, or remove the file.',
        )
    column = _caption_column(table, rows)
    captions = {_name(row[_PICTURE]): row.get(column) or "" for row in rows}
    for name, caption in captions.items():
        if not isinstance(caption, str):
            raise problem(
                f"{table.name}, {name}",
                found=f"{caption!r} as {column!r}",
                expected="one text",
                advice=f"Write the caption as a text, or rename {column!r}.",
            )
    return captions


def _name(path: str) -> str:
    return folded(path.replace("\\", "/").removeprefix("./"))


def _values(table: Path, text: str) -> list[Any]:
    reader = csv.DictReader(StringIO(text, newline=""), skipinitialspace=True)
    rows = []
    try:
        for row in reader:
            if None in row:
                raise _unquoted(table, reader.line_num, "more values than names in the head line")
            rows.append(row)
    except csv.Error as error:
        raise _unquoted(table, reader.line_num, str(error)) from error
    return rows


def _unquoted(table: Path, line: int, found: str) -> ZipLoRAError:
    return problem(
        f"{table.name}, line {line}",
        found=found,
        expected="a caption with commas in double quotes",
        advice='Write dog.jpg,"a dog, on grass", or remove the file to train without its captions.',
    )


def _json_lines(table: Path, text: str) -> list[Any]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            rows += [json.loads(line)] if line.strip() else []
        except (ValueError, RecursionError) as error:
            raise problem(
                f"{table.name}, line {number}",
                found=f"no JSON ({error})",
                expected=f'an object such as {{"{_PICTURE}": "dog.jpg", "text": "a dog"}}',
                advice="Correct the line, or remove the file to train without its captions.",
            ) from error
    return rows


def _caption_column(table: Path, rows: Sequence[dict[str, Any]]) -> str:
    """Choose the column of the captions: one of the usual names, or the only other one."""
    columns = list(dict.fromkeys(name for row in rows for name in row if name != _PICTURE))
    usual = [name for name in _CAPTION if name in columns]
    if not usual and len(columns) != 1:
        raise problem(
            table.name,
            found=f"the columns {', '.join(map(str, columns))}" if columns else "no captions",
            expected=f"captions in a column {' or '.join(map(repr, _CAPTION))}",
            advice="Rename the column of the captions to 'text', or remove the file.",
        )
    return [*usual, *columns][0]
