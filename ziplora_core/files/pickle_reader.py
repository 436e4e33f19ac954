"""Reader of PyTorch files that hold tensors only; code in them is never run.

torch.load's `weights_only` keeps code out. It does not keep out small files that ask for gigabytes
or hours, so everything that grows is looked for first.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from ..errors import problem
from .safetensors_reader import check_size

_ZIP = b"PK\x03\x04"
_GROWING = ("_codecs", "bytearray")
"""Modules and names of the calls by which a few bytes of a pickle make very many."""
_LARGEST = 1 << 53
"""Integers beyond it are no sizes; as keys of a dictionary, they can be chosen to collide."""
_HEADS = 5
"""Pickles at the beginning of a file in the format before PyTorch 1.6; the first is a signature."""

_UNPICKLING_ERRORS = (
    *(pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError, TypeError),
    *(AttributeError, AssertionError, ArithmeticError, struct.error, MemoryError, OSError),
    *(zipfile.BadZipFile, NotImplementedError),
)
"""Exceptions that torch.load raises for files with code, damaged files and other files."""


def unpickle(path: Path, advice: str) -> tuple[object, str]:
    """Read a PyTorch file that holds tensors only.

    Args:
        path: the file.
        advice: what to do about a file that cannot be read.

    Returns:
        The content, and the SHA-256 of the file in hex.

    Raises:
        ZipLoRAError: the file is empty, damaged or compressed, or contains code.
        OSError: the file cannot be read.
    """
    check_size(path.stat().st_size, path.name)
    data = path.read_bytes()
    try:
        found = _growth(data)
        if not found:
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            return content, hashlib.sha256(data).hexdigest()
    except _UNPICKLING_ERRORS as error:
        found = f"an unreadable PyTorch file, or one that contains code ({type(error).__name__})"
        raise problem(path.name, found=found, expected="tensors only", advice=advice) from error
    raise problem(path.name, found=found, expected="tensors only", advice=advice)


def is_plain(tensor: object) -> bool:
    """Return whether a value is a tensor with numbers of its own, side by side in memory.

    A meta tensor has none, a sparse, nested or quantised one stores others.
    """
    if not isinstance(tensor, Tensor) or tensor.layout is not torch.strided:
        return False
    return not (tensor.is_meta or tensor.is_nested or tensor.is_quantized)


def _growth(data: bytes) -> str:
    """Name what would make the file's content much larger than the file; empty if nothing."""
    if not data.startswith(_ZIP):
        stream = io.BytesIO(data)
        return _growth_of((_operations(stream) for _ in range(_HEADS)), skip=1)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            return "a compressed archive, which torch.save does not write"
        if (size := sum(entry.file_size for entry in entries)) > len(data):
            return f"an archive of {len(data)} bytes with {size} bytes in it"
        pickles = [archive.read(entry) for entry in entries if entry.filename.endswith(".pkl")]
    return _growth_of((_operations(io.BytesIO(text)) for text in pickles), skip=0)


def _growth_of(pickles: Iterable[Iterator[object]], skip: int) -> str:
    """Look for calls and keys that grow in all pickles but the first `skip`."""
    for number, arguments in enumerate(pickles):
        for argument in arguments:
            if isinstance(argument, str) and any(name in argument for name in _GROWING):
                return f"a call of {argument!r}"
            if number >= skip and isinstance(argument, int) and abs(argument) > _LARGEST:
                return "whole numbers that are no sizes"
    return ""


def _operations(stream: io.BytesIO) -> Iterator[object]:
    """List the arguments of a pickle's operations, up to its end or to what is no pickle."""
    try:
        yield from (argument for _, argument, _ in pickletools.genops(stream))
    except ValueError:
        return  # torch.load says what is wrong with it
