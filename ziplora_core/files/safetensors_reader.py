"""Reader of .safetensors files that checks the whole header before it reads a tensor.

Layout: a little-endian u64 n, n bytes of UTF-8 JSON, the tensors' bytes side by side.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader

import torch
from torch import Tensor

from ..errors import ZipLoRAError, problem

MAX_FILE_BYTES = 16 << 30
MAX_HEADER_BYTES = 32 << 20
MAX_TENSORS = 100_000
MAX_DIMENSIONS = 8

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}

# First bytes of files that are often mistaken for .safetensors files.
LOOKALIKES = {
    b"PK\x03\x04": "a zip archive, probably a PyTorch file renamed",
    b"\x80": "a Python pickle, probably a PyTorch file renamed",
    b"<": "a web page",
    b"version https://git-lfs": "a Git LFS pointer instead of the file itself",
}


@dataclass(frozen=True)
class Entry:
    """One tensor of the header: shape, dtype, and its bytes `[begin, end)` of the data."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """The tensors by key, the file's `__metadata__`, and the byte where the data begins."""

    entries: dict[str, Entry]
    metadata: Mapping[str, str]
    data_start: int


def read_header(file: BufferedReader, source: str) -> Header:
    """Read the header and check that it describes the file exactly.

    Args:
        file: the file, open for reading bytes.
        source: its name, for messages.

    Raises:
        ZipLoRAError: not a safetensors file, damaged, or with tensors of an unusable type.
    """
    size = file.seek(0, os.SEEK_END)
    fields, data_start = _read_json(file, size, source)
    metadata = fields.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _damaged(f"{source}, __metadata__", "values that are not text", "texts by name")
    if not 0 < len(fields) <= MAX_TENSORS:
        raise _damaged(source, f"{len(fields)} tensors", f"1 to {MAX_TENSORS} tensors")
    entries = {key: _entry(f"{source}, key {key}", field) for key, field in fields.items()}
    _check_ranges(entries, size - data_start, source)
    return Header(entries, metadata, data_start)


def read_tensors(
    file: BufferedReader, header: Header, source: str
) -> tuple[dict[str, Tensor], str]:
    """Read every tensor in file order, without mapping the file into memory.

    Returns:
        The tensors by key, and the SHA-256 of the whole file in hex.

    Raises:
        ZipLoRAError: the file has become shorter since its header was read.
    """
    file.seek(0)
    digest = hashlib.sha256(file.read(header.data_start))
    tensors = {}
    for key, entry in sorted(header.entries.items(), key=lambda item: item[1].begin):
        data = bytearray(entry.end - entry.begin)
        if file.readinto(data) != len(data):
            raise _damaged(f"{source}, key {key}", "the end of the file", f"{len(data)} bytes")
        digest.update(data)
        flat = torch.frombuffer(data, dtype=entry.dtype) if data else torch.empty(0)
        tensors[key] = flat.reshape(entry.shape)
    return tensors, digest.hexdigest()


def check_size(size: int, source: str) -> None:
    """Refuse empty files, and files too large for a LoRA.

    Raises:
        ZipLoRAError: the file is empty or too large.
    """
    if not 0 < size <= MAX_FILE_BYTES:
        found = f"a file of {size} bytes" if size else "an empty file"
        raise _damaged(source, found, f"a LoRA file of at most {MAX_FILE_BYTES >> 30} GiB")


def _read_json(file: BufferedReader, size: int, source: str) -> tuple[dict[str, object], int]:
    """Return the header's JSON object, and the byte where the data begins."""
    check_size(size, source)
    file.seek(0)
    start = file.read(32)
    # Other programs' readers test for `{` here, so no blank may precede it.
    if start[8:9] != b"{":
        kinds = (kind for magic, kind in LOOKALIKES.items() if start.startswith(magic))
        found = next(kinds, "a file that does not begin with a safetensors header")
        raise _damaged(source, found, "8 bytes of length, then a JSON header beginning with {")
    length = int.from_bytes(start[:8], "little")
    if length > MAX_HEADER_BYTES:
        raise _damaged(source, f"a header of {length} bytes", f"at most {MAX_HEADER_BYTES} bytes")
    if 8 + length > size:
        raise _damaged(source, f"{size} bytes", f"a header of {length} bytes: it is cut off")
    file.seek(8)
    try:
        fields = json.loads(file.read(length).decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _damaged(source, f"a damaged header ({error})", "a JSON object") from error
    return fields, 8 + length


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Build a JSON object; refuse duplicate names and lone surrogates."""
    "".join(text for pair in pairs for text in pair if isinstance(text, str)).encode()
    fields = dict(pairs)
    if len(fields) < len(pairs):
        (name, _count), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the name {name} occurs twice")
    return fields


def _entry(subject: str, field: object) -> Entry:
    """Check the description of one tensor on its own."""
    fields = field if isinstance(field, dict) else {}
    dtype, shape = fields.get("dtype"), _sizes(fields, "shape")
    offsets = _sizes(fields, "data_offsets")
    if shape is None or offsets is None or len(offsets) != 2:
        raise _damaged(subject, "no valid shape or data_offsets", "lists of whole numbers")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise problem(
            subject,
            found=f"the number type {dtype}",
            expected=f"one of {', '.join(DTYPES)}",
            advice="Save the LoRA as F16, BF16 or F32.",
        )
    begin, end = offsets
    expected = math.prod(shape) * DTYPES[dtype].itemsize
    if end - begin != expected:
        raise _damaged(subject, f"{end - begin} bytes", f"{expected} for {dtype} {shape}")
    return Entry(tuple(shape), DTYPES[dtype], begin, end)


def _sizes(fields: Mapping[str, object], name: str) -> list[int] | None:
    """Return a list of whole numbers that is valid for a tensor, None for anything else."""
    value = fields.get(name)
    if not isinstance(value, list) or len(value) > MAX_DIMENSIONS:
        return None
    return value if all(type(n) is int and 0 <= n < 1 << 63 for n in value) else None


def _check_ranges(entries: Mapping[str, Entry], data_size: int, source: str) -> None:
    """Check that the tensors lie side by side and fill the data to its last byte."""
    position = 0
    for key, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != position:
            subject = f"{source}, key {key}"
            raise _damaged(subject, f"data at byte {entry.begin}", f"data at byte {position}")
        position = entry.end
    if position != data_size:
        raise _damaged(source, f"{data_size} bytes of data", f"{position}, as its header says")


def _damaged(subject: str, found: str, expected: str) -> ZipLoRAError:
    advice = "Download the file again, or save it again with the program that made it."
    return problem(subject, found=found, expected=expected, advice=advice)
