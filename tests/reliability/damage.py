"""Ways in which the file of a checkpoint is damaged, and files that are none of this training."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from typing import Any

Damage = Callable[[bytes, random.Random], bytes]


def flip(data: bytes, rng: random.Random) -> bytes:
    """Flip one bit anywhere."""
    return _flipped(data, rng.randrange(8 * len(data)))


def flip_in_header(data: bytes, rng: random.Random) -> bytes:
    """Flip one bit of the header or of its length."""
    return _flipped(data, rng.randrange(8 * _start(data)))


def truncate(data: bytes, rng: random.Random) -> bytes:
    """Cut the file off anywhere."""
    return data[: rng.randrange(len(data))]


def lengthen(data: bytes, rng: random.Random) -> bytes:
    """Put bytes behind the end."""
    return data + rng.randbytes(rng.randrange(1, 600))


def overwrite(data: bytes, rng: random.Random) -> bytes:
    """Overwrite a piece with zeros or noise, as a disk does that loses a sector."""
    size = rng.randrange(1, 600)
    at = rng.randrange(len(data))
    new = bytes(size) if rng.random() < 0.5 else rng.randbytes(size)
    changed = (data[:at] + new + data[at + size :])[: len(data)]
    return changed if changed != data else _flipped(data, 8 * at)


def lose(data: bytes, rng: random.Random) -> bytes:
    """Take a piece out of the middle."""
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.randrange(1, 600) :]


def swap_bytes(data: bytes, rng: random.Random) -> bytes:
    """Exchange two pieces of the same length."""
    size = rng.randrange(1, 64)
    first = rng.randrange(len(data) - 2 * size)
    second = rng.randrange(first + size, len(data) - size)
    a, b = data[first : first + size], data[second : second + size]
    changed = data[:first] + b + data[first + size : second] + a + data[second + size :]
    return changed if changed != data else _flipped(data, 8 * first)


def swap_tensors(data: bytes, rng: random.Random) -> bytes:
    """Exchange the places of two tensors in the header."""

    def change(fields: dict[str, Any]) -> None:
        one, two = rng.sample(_names(fields), 2)
        fields[one], fields[two] = fields[two], fields[one]

    return _with_header(data, change, signed=False)


def change_text(data: bytes, rng: random.Random) -> bytes:
    """Write another number or text into the record, as an editor would."""

    def change(said: dict[str, Any], _rng: random.Random) -> None:
        name = rng.choice(["step", "seconds", "ended", "notes", "failed", "low_memory"])
        said[name] = {
            "step": said["step"] - 1, "seconds": 0.5, "ended": "stopped", "notes": ["other"],
            "failed": not said["failed"], "low_memory": not said["low_memory"],
        }[name]  # fmt: skip

    return _with_record(data, change, rng, signed=False)


def other_shape(data: bytes, rng: random.Random) -> bytes:
    """Give a tensor another shape with as many values, and the file the digest of that."""

    def change(fields: dict[str, Any]) -> None:
        name = rng.choice(_names(fields))
        shape = fields[name]["shape"]
        fields[name]["shape"] = rng.choice([[1, *shape], [*shape, 1], [1, *shape, 1]])

    return _with_header(data, change, signed=True)


def other_dtype(data: bytes, rng: random.Random) -> bytes:
    """Read the values of a tensor as another kind of number, with the digest of that."""
    same_size = {"F32": ["I32", "U32"], "F64": ["I64", "U64"], "BOOL": ["U8", "I8"]}

    def change(fields: dict[str, Any]) -> None:
        name = rng.choice([n for n in _names(fields) if fields[n]["dtype"] in same_size])
        fields[name]["dtype"] = rng.choice(same_size[fields[name]["dtype"]])

    return _with_header(data, change, signed=True)


def other_name(data: bytes, rng: random.Random) -> bytes:
    """Give a tensor another name, which another training may have, with the digest of that.

    Names in the history are what a chart shows, and nothing depends on them.
    """

    def change(fields: dict[str, Any]) -> None:
        name = rng.choice([n for n in _names(fields) if not n.startswith("history/")])
        new = rng.choice(
            ["parameters/7", "parameters/x", "optimiser/0/exp", "optimiser/9/step", "extra/none",
             "history/" + 3 * "loss", "else", "optimiser//", f"optimiser/{10**4000}/step"]
        )  # fmt: skip
        fields.update({new: fields.pop(name)})

    return _with_header(data, change, signed=True)


def other_record(data: bytes, rng: random.Random) -> bytes:
    """Put values of other kinds, or out of their range, into the record, with its digest."""
    kinds = [None, "1", [], {}, True, -1, 0, 1e400, 10**400, {"1": {"2": [3]}}, [None]]

    def change(said: dict[str, Any], rng: random.Random) -> None:
        name = rng.choice(["version", "step", "steps", "optimiser", "ziplora.folder", "notes"])
        new = rng.choice([k for k in kinds if k != said[name] and [k, name] != [[], "notes"]])
        said[name] = new
        if rng.random() < 0.2:
            del said[name]

    return _with_record(data, change, rng, signed=True)


def no_record(data: bytes, rng: random.Random) -> bytes:
    """Leave the record out, or make it something else than an object, with the digest."""

    def change(fields: dict[str, Any]) -> None:
        deep = "[" * 100_000
        fields["__metadata__"] = rng.choice(
            [{}, {"ziplora.state": "[1]"}, {"ziplora.state": deep}, {"ziplora.state": "{"}]
        )

    return _with_header(data, change, signed=True)


def nothing_of_it(data: bytes, rng: random.Random) -> bytes:
    """Put another file in its place: empty, noise, text, a pickle, a zip archive."""
    beginnings = [b"", b"\x80\x04", b"PK\x03\x04", b"<html>", b"{", b"\0" * 8, data[:8]]
    return rng.choice(beginnings) + rng.randbytes(rng.randrange(3000))


KINDS: tuple[Damage, ...] = (
    flip, flip_in_header, truncate, lengthen, overwrite, lose, swap_bytes, swap_tensors,
    change_text, other_shape, other_dtype, other_name, other_record, no_record, nothing_of_it,
)  # fmt: skip
"""All kinds. Those with the right digest are files that this pack or another program might write
for another training: someone who forges numbers can write any digest."""


def _flipped(data: bytes, bit: int) -> bytes:
    byte = data[bit // 8] ^ (1 << bit % 8)
    return data[: bit // 8] + bytes([byte]) + data[bit // 8 + 1 :]


def _start(data: bytes) -> int:
    """The byte where the tensors begin."""
    return 8 + int.from_bytes(data[:8], "little")


def _names(fields: dict[str, Any]) -> list[str]:
    return sorted(name for name in fields if name not in ("__metadata__", "sha256"))


def _with_header(data: bytes, change: Callable[[dict[str, Any]], None], signed: bool) -> bytes:
    """Change the header's JSON; `signed` computes the digest anew."""
    start = _start(data)
    fields = json.loads(data[8:start])
    before = json.dumps(fields)
    change(fields)
    assert json.dumps(fields) != before
    text = json.dumps(fields).encode()
    head = len(text).to_bytes(8, "little") + text + data[start:-32]
    return head + (hashlib.sha256(head).digest() if signed else data[-32:])


def _with_record(
    data: bytes,
    change: Callable[[dict[str, Any], random.Random], None],
    rng: random.Random,
    signed: bool,
) -> bytes:
    def changed(fields: dict[str, Any]) -> None:
        said = json.loads(fields["__metadata__"]["ziplora.state"])
        change(said, rng)
        fields["__metadata__"]["ziplora.state"] = json.dumps(said)

    return _with_header(data, changed, signed)
