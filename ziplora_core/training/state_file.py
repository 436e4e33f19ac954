"""The file of a training state, which shows when it is damaged.

It is a safetensors file whose last tensor is the SHA-256 of all bytes before that tensor. Every
other value is in the tensors, or as one JSON object in the header.
"""

from __future__ import annotations

import hashlib
import json
import textwrap
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ZipLoRAError
from ..files.atomic import Part, write_stream
from ..files.safetensors_reader import DTYPES, Entry, Header, read_header

_DIGEST, _SAID = "sha256", "ziplora.state"
_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_LONGEST = 200
"""Longest reason for a refusal, in characters: a damaged file may contain anything."""


class UnusableStateError(ZipLoRAError):
    """A training state that cannot be resumed; the message is a reason, as in "it is damaged"."""

    def __init__(self, reason: str) -> None:
        super().__init__(textwrap.shorten(reason, _LONGEST, placeholder=" …"))


def write_state_file(path: Path, tensors: Mapping[str, Tensor], said: Mapping[str, Any]) -> None:
    """Write a state atomically, tensor by tensor, so that none is in memory twice on the CPU.

    Args:
        path: the final name; an earlier file is replaced.
        tensors: tensors by name, on any device.
        said: JSON values.

    Raises:
        OSError: the disk is full or not writable; an earlier file is untouched.
    """
    write_stream(path, _with_digest(_header(tensors, said), tensors), replace=True)


def read_state_file(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a state into memory, and check its digest.

    Returns:
        The tensors on the CPU by name, and the JSON values.

    Raises:
        UnusableStateError: the file is no such state, or not as it was written.
    """
    try:
        with open(path, "rb") as file:
            header = read_header(file, path.name)
            tensors = _read_checked(file, header)
    except UnusableStateError:
        raise
    except ZipLoRAError as error:
        raise UnusableStateError(f"it is damaged ({str(error).partition('. ')[0]})") from error
    except OSError as error:
        raise UnusableStateError(f"it cannot be read ({error})") from error
    try:
        said = json.loads(header.metadata.get(_SAID, ""))
    except (ValueError, RecursionError) as error:
        raise UnusableStateError("it has no record of a training") from error
    if not isinstance(said, dict):
        raise UnusableStateError("it has no record of a training")
    return tensors, said


def _header(tensors: Mapping[str, Tensor], said: Mapping[str, Any]) -> bytes:
    """Describe the tensors in the order in which they are written, then the digest."""
    entries: dict[str, Any] = {"__metadata__": {_SAID: json.dumps(said)}}
    described = [(key, _DTYPE_NAMES[t.dtype], [*t.shape], t.nbytes) for key, t in tensors.items()]
    end = 0
    for key, dtype, shape, size in [*described, (_DIGEST, "U8", [_digest_size()], _digest_size())]:
        entries[key] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _digest_size() -> int:
    return hashlib.sha256().digest_size


def _with_digest(header: bytes, tensors: Mapping[str, Tensor]) -> Iterator[Part]:
    """Yield the file's parts; a tensor from another device is copied only when it is written."""
    found = hashlib.sha256(header)
    yield header
    for tensor in tensors.values():
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        part = flat.view(torch.uint8).numpy().data
        found.update(part)
        yield part
    yield found.digest()


def _read_checked(file: BufferedReader, header: Header) -> dict[str, Tensor]:
    """Read every tensor into memory of its own, once the digest of all of them is right."""
    file.seek(0)
    found, parts = hashlib.sha256(file.read(header.data_start)), dict[str, bytearray]()
    for key, entry in sorted(header.entries.items(), key=lambda item: item[1].begin):
        parts[key] = bytearray(entry.end - entry.begin)
        if file.readinto(parts[key]) != len(parts[key]):
            raise UnusableStateError("it is damaged (it has become shorter)")
        if key != _DIGEST:
            found.update(parts[key])
    if parts.pop(_DIGEST, b"") != found.digest():
        raise UnusableStateError("it is damaged (its content does not match its SHA-256)")
    return {key: _tensor(part, header.entries[key]) for key, part in parts.items()}


def _tensor(part: bytearray, entry: Entry) -> Tensor:
    try:
        flat = torch.frombuffer(part, dtype=torch.uint8) if part else torch.empty(0).byte()
        return flat.view(entry.dtype).reshape(entry.shape)
    except RuntimeError as error:  # an empty tensor of a size that no tensor can have
        raise UnusableStateError(f"it is damaged ({error})") from error
