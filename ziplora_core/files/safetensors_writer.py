"""The bytes of a safetensors file: the same for the same tensors and metadata, hashes included."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..errors import ZipLoRAError, problem
from .atomic import Part
from .compare import all_finite
from .safetensors_reader import DTYPES

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def file_parts(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> list[Part]:
    """Serialise CPU tensors, with their hashes in the metadata: header, then the tensors' bytes.

    The bytes are views of the tensors, not copies. Tensors are sorted by descending item size,
    which keeps them aligned, then by key.

    Raises:
        ZipLoRAError: a tensor is not finite.
    """
    entries: dict[str, object] = {}
    body: list[Part] = []
    end = 0
    for key in sorted(tensors, key=lambda key: (-tensors[key].itemsize, key)):
        tensor = tensors[key]
        if not all_finite(tensor):
            raise not_finite(key, tensor.dtype)
        body.append(tensor.reshape(-1).view(torch.uint8).numpy().data)
        begin, end = end, end + tensor.nbytes
        dtype = _NAMES[tensor.dtype]
        entries[key] = {"dtype": dtype, "shape": [*tensor.shape], "data_offsets": [begin, end]}
    hashes = _hashes(entries, body, metadata)
    return [_header(entries, {**metadata, **hashes}), *body]


def not_finite(subject: str, dtype: torch.dtype) -> ZipLoRAError:
    """Make the error of numbers that a dtype cannot hold."""
    return problem(
        subject,
        found=f"NaN or infinity in {dtype}",
        expected="finite numbers",
        advice="Save with dtype fp32 or bf16; if this persists, the merge itself failed.",
    )


def _hashes(
    entries: Mapping[str, object], body: Sequence[Part], metadata: Mapping[str, str]
) -> dict[str, str]:
    """Compute the SHA-256 of the tensors' bytes, as every tool does, and kohya's old short hash.

    The latter is 8 hex digits over the 64 KiB at 1 MiB of a file with only the `ss_` metadata.
    """
    head = _header(entries, {k: text for k, text in metadata.items() if k.startswith("ss_")})
    whole, legacy = hashlib.sha256(), hashlib.sha256(head[0x100000:0x110000])
    start, end = (max(0, at - len(head)) for at in (0x100000, 0x110000))
    for part in body:
        whole.update(part)
        legacy.update(part[start:end])
        start, end = max(0, start - len(part)), max(0, end - len(part))
    return {
        "sshs_model_hash": whole.hexdigest(),
        "sshs_legacy_hash": legacy.hexdigest()[:8],
        "modelspec.hash_sha256": f"0x{whole.hexdigest()}",
    }


def _header(entries: Mapping[str, object], metadata: Mapping[str, str]) -> bytes:
    """Build a file's header, with sorted metadata.

    The safetensors library writes metadata in the order of a hash map, which differs from process
    to process; here, the same merge gives the same bytes.
    """
    header = {"__metadata__": dict(sorted(metadata.items())), **entries}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
