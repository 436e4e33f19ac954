"""A training's losses as files for other programs: CSV, and TensorBoard's events."""

from __future__ import annotations

import csv
import io
import struct
from collections.abc import Iterator, Mapping
from typing import Any

_POLYNOMIAL = 0x82F63B78
"""CRC-32C (Castagnoli), reflected."""
_MASK = 0xA282EAD8
_FILE_VERSION = b"brain.Event:2"

Row = tuple[int, dict[str, float | None]]
"""A step or pass, and its values."""


def as_csv(record: Mapping[str, Any]) -> str:
    """Write a record's losses as a table with a header; a value that is not a number is empty.

    The first column is `step`; of a closed form, `pass`.
    """
    unit, rows = _rows(record)
    names = list(dict.fromkeys(name for _, values in rows for name in values))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([unit, *names])
    for number, values in rows:
        table.writerow([number, *(values.get(name) for name in names)])
    return text.getvalue()


def as_events(record: Mapping[str, Any]) -> bytes:
    """Write a record's losses as an event file of TensorBoard, a scalar for each of them.

    The times of the steps lie evenly between the start and the end, as they are not recorded.
    """
    _, rows = _rows(record)
    started, last = float(record["started"]), max((number for number, _ in rows), default=1)
    each = (float(record["ended"]) - started) / max(1, last)
    events = [_event(started, 0, _bytes_field(3, _FILE_VERSION))]
    for number, values in rows:
        known = {name: value for name, value in values.items() if value is not None}
        summary = b"".join(_scalar(name, value) for name, value in known.items())
        events.append(_event(started + number * each, number, _bytes_field(5, summary)))
    return b"".join(map(_framed, events))


def _rows(record: Mapping[str, Any]) -> tuple[str, list[Row]]:
    """Return the unit of the rows and the rows."""
    points = record["points"]
    steps = points.get("step", [])
    if not steps and record["errors"]:
        return "pass", [(number, {"error": v}) for number, v in enumerate(record["errors"])]
    terms = {name: values for name, values in points.items() if name != "step"}
    return "step", [
        (step, {name: values[n] for name, values in terms.items()}) for n, step in enumerate(steps)
    ]


def _event(wall_time: float, step: int, what: bytes) -> bytes:
    """Encode the message `Event`: wall_time = 1, step = 2 unless 0, and one of its other fields."""
    numbered = b"\x10" + _varint(step) if step else b""
    return b"\x09" + struct.pack("<d", wall_time) + numbered + what


def _scalar(name: str, value: float) -> bytes:
    """Encode a `Summary.Value`, field 1 of `Summary`: tag = 1, simple_value = 2."""
    return _bytes_field(
        1, _bytes_field(1, f"loss/{name}".encode()) + b"\x15" + struct.pack("<f", value)
    )


def _bytes_field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    """Encode a number that is not negative: seven bits a byte, the lowest first."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def _framed(data: bytes) -> bytes:
    """Put an event into the framing of TFRecord: its length and both checksums."""
    length = struct.pack("<Q", len(data))
    return length + _checksum(length) + data + _checksum(data)


def _checksum(data: bytes) -> bytes:
    found = crc32c(data)
    masked = ((found >> 15 | found << 17 & 0xFFFFFFFF) + _MASK) & 0xFFFFFFFF
    return struct.pack("<I", masked)


def _table() -> Iterator[int]:
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        yield value


_TABLE = tuple(_table())


def crc32c(data: bytes) -> int:
    """Return the CRC-32C of bytes, which Python's libraries do not have."""
    found = 0xFFFFFFFF
    for byte in data:
        found = _TABLE[(found ^ byte) & 0xFF] ^ found >> 8
    return found ^ 0xFFFFFFFF
