"""Damage to inputs: of bytes, of a safetensors header, of a pickle's bytes and of its contents."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
import zlib
from typing import Any

import torch
from torch import Tensor

from .seeds import METADATA, pickled

LONGEST = 1 << 16
"""Longest input, in bytes."""
_NUMBERS = (0, 1, -1, 2, 3, 7, 255, 1 << 16, 20000, 1 << 31, 1 << 53, (1 << 63) - 1, 1 << 64, 1.5)
_TEXTS = (
    *("", "x", "F16", "F64", "BOOL", "U64", "F8_E4M3", "NaN", "1e999", "-Infinity", "null", "[]"),
    *('{"a":1}', "[" * 3000, ".*a.*b", "(a|b)*", "unet.", "lora_te1_", "\ud800", "\0", "é" * 40),
    *("lora_down.weight", "hada_t1", "lokr_t2", "diff", "scalar", "alpha", "utf-7", "charset="),
)


def damage(data: bytes, others: list[bytes], draw: random.Random) -> bytes:
    """Change an input in one to four places, most often where its format has a structure."""
    for _ in range(draw.choice((1, 1, 2, 4))):
        if (zipped := data[:4] == b"PK\x03\x04") and draw.random() < 0.3:
            data = _in_zip(data, draw)
        elif (zipped or data[:1] == b"\x80") and draw.random() < 0.8:
            data = _in_contents(data, draw)
        elif data[8:9] == b"{" and draw.random() < 0.85:
            data = _in_header(data, draw)
        else:
            data = _in_bytes(data, draw.choice(others), draw)
    return data[:LONGEST]


def _in_bytes(data: bytes, other: bytes, draw: random.Random) -> bytes:
    """Flip, insert, leave out, repeat, or take from another input."""
    at, end = sorted(draw.randrange(len(data) + 1) for _ in range(2))
    end = min(end, at + draw.choice((1, 2, 8, 64)))
    text = draw.choice(_TEXTS).encode("utf-8", "surrogatepass")
    middle = draw.choice(
        (
            bytes(byte ^ (1 << draw.randrange(8)) for byte in data[at:end]),
            draw.randbytes(end - at),
            text,
            b"",
            data[at:end] * draw.choice((2, 3, 50)),
            other[at:end],
            str(draw.choice(_NUMBERS)).encode(),
        )
    )
    return data[:at] + middle + data[end:]


def _in_header(data: bytes, draw: random.Random) -> bytes:
    """Change a value, a name or the metadata of a safetensors header; often mend the ranges."""
    length = struct.unpack("<Q", data[:8])[0]
    body = data[8 + length :]
    try:
        fields = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError):
        return _in_bytes(data, data, draw)
    if not isinstance(fields, dict) or not fields:
        return _in_bytes(data, data, draw)
    if draw.random() < 0.3:
        name = draw.choice([*METADATA])
        said = fields.setdefault("__metadata__", {})
        if isinstance(said, dict):
            text = str(said.get(name, METADATA[name])).encode("utf-8", "surrogatepass")
            said[name] = _in_bytes(text, text, draw).decode("utf-8", "ignore")
    else:
        fields = _changed(fields, draw)
    if isinstance(fields, dict) and draw.random() < 0.7:
        body = _mended(fields, body)
    text = json.dumps(fields).encode()
    return struct.pack("<Q", len(text)) + text + body


def _changed(value: Any, draw: random.Random) -> Any:
    """Change one value of a JSON value, at any depth."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        name = draw.choice([*value])
        if draw.random() < 0.2:
            others = {k: v for k, v in value.items() if k != name}
            return {**others, _renamed(name, draw): value[name]}
        return {**value, name: _changed(value[name], draw)}
    if isinstance(value, list) and value and draw.random() < 0.9:
        at = draw.randrange(len(value))
        return [*value[:at], _changed(value[at], draw), *value[at + draw.choice((0, 1)) :]]
    return draw.choice((*_NUMBERS, *_TEXTS, None, True, [], {}, [[1]]))


def _mended(fields: dict[str, Any], body: bytes) -> bytes:
    """Give each tensor the range that its shape needs, while the file stays small."""
    sizes = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "BOOL": 1, "U64": 8, "F8_E4M3": 1}
    end = 0
    for name, field in fields.items():
        if name == "__metadata__" or not isinstance(field, dict):
            continue
        size = sizes.get(str(field.get("dtype")), 0)
        shape = field.get("shape")
        for n in shape if isinstance(shape, list) else ():
            size *= n if isinstance(n, int) and 0 <= n < LONGEST else 0
        size = min(size, LONGEST)
        field["data_offsets"] = [end, end + size]
        end += size
    return (body * (end // max(len(body), 1) + 1))[:end] if body else bytes(end)


def _in_contents(data: bytes, draw: random.Random) -> bytes:
    """Change a tensor or a name of what a pickle holds, and pickle it again."""
    try:
        contents = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        holder = contents.get("state_dict", contents) if isinstance(contents, dict) else contents
        places = [*(holder if isinstance(holder, dict) else range(len(holder)))]
        place = draw.choice(places)
        if isinstance(holder, dict) and draw.random() < 0.2:
            holder[_renamed(str(place), draw)] = holder.pop(place)
        else:
            holder[place] = _other_value(holder[place], draw)
        return pickled(contents, zipped=draw.random() < 0.5)
    except Exception:  # noqa: BLE001 an input that is too damaged for this
        return _in_bytes(data, data, draw)


def _renamed(name: str, draw: random.Random) -> str:
    return name[: draw.randrange(len(name) + 1)] + draw.choice(_TEXTS)


def _other_value(value: Any, draw: random.Random) -> Any:
    """Return something in place of a tensor: another shape, dtype, layout, or no tensor at all."""
    if not isinstance(value, Tensor) or draw.random() < 0.1:
        return draw.choice((*_NUMBERS, *_TEXTS, None, [], {}, [[1.0]], torch.ones(2)))
    changes = (
        lambda: value.T if value.ndim == 2 else value[None],
        lambda: value.flatten(),
        lambda: value.new_zeros(draw.choice((0, 1, 3)), *value.shape[1:]),
        lambda: value[:1].expand(draw.choice((2, 1 << 16)), *value.shape[1:]),
        lambda: value.repeat(*(1,) * (value.ndim - 1), 2),
        lambda: value * draw.choice((0.0, -1.0, 1e38, 1e-38, float("nan"), float("inf"))),
        lambda: value.to(draw.choice((torch.float64, torch.float16, torch.int64, torch.bool))),
        lambda: value.to(torch.complex64),
        lambda: value.to_sparse(),
        lambda: value.to(torch.device("meta")),
        lambda: torch.nn.Parameter(value.float()),
        lambda: value[..., None, None],
    )
    return draw.choice(changes)()


def _in_zip(data: bytes, draw: random.Random) -> bytes:
    """Change one record of an archive, and write it with the right checksum."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            records = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, EOFError, RuntimeError):
        return _in_bytes(data, data, draw)
    if not records:
        return data
    pickles = [name for name in records if name.endswith(".pkl")]
    name = draw.choice(pickles if pickles and draw.random() < 0.8 else [*records])
    records[name] = _in_bytes(records[name], records[name], draw)
    kind = zipfile.ZIP_DEFLATED if draw.random() < 0.05 else zipfile.ZIP_STORED
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        for record, content in records.items():
            archive.writestr(record, content)
    return buffer.getvalue()
