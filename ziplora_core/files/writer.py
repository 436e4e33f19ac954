"""The LoRA file writer: kohya's layout with sgm names, which every loader reads correctly.

Rules (for each there is a loader that reads other files wrongly): only `lora_down.weight`,
`lora_up.weight` and `alpha`; one alpha for the whole file, the rest folded into the factors; no
tensor that a stock loader does not know.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import ZipLoRAError, problem, refuse_unknown
from ..lora.factors import LoraFactors, LoraModel
from ..lora.magnitude import exceeds
from .atomic import Part, write_bytes
from .compare import all_finite, relative_error
from .half_precision import comparable, within_fp16
from .reader import read_lora
from .safetensors_reader import DTYPES as FILE_DTYPES

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
TOLERANCES = {"fp16": 1e-2, "bf16": 5e-2, "fp32": 1e-5}
"""Largest relative error of a module that counts as rounding."""
_DTYPE_NAMES = {dtype: name for name, dtype in FILE_DTYPES.items()}
_WRITABLE = re.compile(
    r"lora_unet_(input_blocks|middle_block|output_blocks|time_embed|label_emb|out)_"
    r"|lora_te[12]_text_(model|projection)"
)


@dataclass(frozen=True)
class WrittenFile:
    """A file that was written, read back and compared.

    Args:
        path: the file.
        sha256: SHA-256 of the whole file.
        error: largest relative error ‖delta_file − delta‖_F / ‖delta‖_F over the modules.
    """

    path: Path
    sha256: str
    error: float


def file_alpha(modules: Mapping[str, LoraFactors]) -> float:
    """Return the file's one alpha: the most common rank (the largest in a tie)."""
    ranks = Counter(f.rank for f in modules.values())
    return float(max(ranks, key=lambda rank: (ranks[rank], rank)))


def kohya_tensors(
    modules: Mapping[str, LoraFactors],
    dtype: torch.dtype = torch.float32,
    alpha: float | None = None,
) -> dict[str, Tensor]:
    """Return tensors in kohya's layout with one alpha; the factors take the rest of the scale.

    f = scale · rank / alpha_file,   down' = √|f| down,   up' = sign(f) √|f| up

    Args:
        modules: factors by kohya module name.
        dtype: dtype of the factors.
        alpha: alpha_file; by default that of `file_alpha`.

    Raises:
        ZipLoRAError: an update is too large for `dtype`, in which loaders compute it.
    """
    alpha = file_alpha(modules) if alpha is None else alpha
    tensors: dict[str, Tensor] = {}
    for name, factors in modules.items():
        if exceeds(factors, torch.finfo(dtype).max):
            raise _not_finite(name, dtype)
        fold = factors.scale * factors.rank / alpha
        root = abs(fold) ** 0.5
        down, up = factors.down, factors.up
        if fold != 1.0:
            down, up = root * down, (root if fold >= 0 else -root) * up
        if dtype == torch.float16:
            down, up = within_fp16(down, up)
        tensors[f"{name}.lora_down.weight"] = down.detach().to("cpu", dtype).contiguous()
        tensors[f"{name}.lora_up.weight"] = up.detach().to("cpu", dtype).contiguous()
        tensors[f"{name}.alpha"] = torch.tensor(alpha)
    return tensors


def lora_model(modules: Mapping[str, LoraFactors], metadata: Mapping[str, str]) -> LoraModel:
    """Make the LORA_MODEL of a LoRA: kohya's layout, float32, with metadata."""
    return LoraModel(kohya_tensors(modules), metadata)


def lora_bytes(
    modules: Mapping[str, LoraFactors],
    metadata: Mapping[str, str],
    dtype: torch.dtype = torch.float32,
) -> bytes:
    """Serialise a LoRA to one piece of bytes; see `lora_parts`."""
    return b"".join(lora_parts(modules, metadata, dtype))


def lora_parts(
    modules: Mapping[str, LoraFactors], metadata: Mapping[str, str], dtype: torch.dtype
) -> list[Part]:
    """Serialise a LoRA with its hashes in the metadata.

    Raises:
        ZipLoRAError: no loader knows a module's name, or a factor is not finite in `dtype`.
    """
    for name in modules:
        if not _WRITABLE.match(name):
            raise problem(
                f"module {name}",
                found="a name outside the SDXL UNet and its text encoders",
                expected="lora_unet_input_blocks_…, lora_te1_… or lora_te2_…",
                advice="Resolve the LoRA against its model first, with Import LoRA.",
            )
    return file_parts(kohya_tensors(modules, dtype), metadata)


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
            raise _not_finite(key, tensor.dtype)
        body.append(tensor.reshape(-1).view(torch.uint8).numpy().data)
        begin, end = end, end + tensor.nbytes
        dtype = _DTYPE_NAMES[tensor.dtype]
        entries[key] = {"dtype": dtype, "shape": [*tensor.shape], "data_offsets": [begin, end]}
    hashes = _hashes(entries, body, metadata)
    return [_header(entries, {**metadata, **hashes}), *body]


def _not_finite(subject: str, dtype: torch.dtype) -> ZipLoRAError:
    return problem(
        subject,
        found=f"NaN or infinity in {dtype}",
        expected="finite numbers",
        advice="Save with dtype fp32 or bf16; if this persists, the merge itself failed.",
    )


def write_lora(
    path: Path, modules: Mapping[str, LoraFactors], metadata: Mapping[str, str], dtype: str
) -> WrittenFile:
    """Write a LoRA file atomically, never over an existing one, then read it back and compare.

    Args:
        path: the final `.safetensors` name.
        modules: factors by kohya module name (sgm names).
        metadata: strings only; hashes are added.
        dtype: `fp16`, `bf16` or `fp32`.

    Raises:
        ZipLoRAError: a factor is not finite, the folder is not writable, or the file does not read
            back as it was written.
        FileExistsError: `path` is taken.
    """
    refuse_unknown("dtype", dtype, DTYPES)
    return write_checked(path, lora_parts(modules, metadata, DTYPES[dtype]), modules, dtype)


def write_checked(
    path: Path, parts: list[Part], modules: Mapping[str, LoraFactors], dtype: str
) -> WrittenFile:
    """Write the parts of a LoRA file as `write_lora` does, with keys of any format.

    Args:
        path: the final name.
        parts: the whole file; emptied once it is written, as reading it needs that memory again.
        modules: factors that the file must contain, by the names that `read_lora` gives.
        dtype: dtype of the stored factors.

    Raises:
        ZipLoRAError, FileExistsError: as `write_lora`.
    """
    try:
        write_bytes(path, *parts)
    except FileExistsError:
        raise
    except OSError as error:
        raise problem(
            str(path),
            found=f"{error.strerror or error} while writing {sum(map(len, parts)):,} bytes",
            expected="a folder with space that can be written to",
            advice="Free some space, or choose a shorter name, and queue again: the result is "
            "cached, and nothing is lost.",
        ) from error
    parts.clear()
    try:
        return _read_back(path, modules, dtype)
    except BaseException:
        path.unlink()  # its content is wrong or unchecked
        raise


def _read_back(path: Path, modules: Mapping[str, LoraFactors], dtype: str) -> WrittenFile:
    """Read the file and compare every module with the factors that were to be written."""
    written = read_lora(path)
    errors = {
        name: relative_error(written.modules[name], comparable(f)) for name, f in modules.items()
    }
    worst = max(errors, key=lambda name: errors[name])
    if (error := errors[worst]) > TOLERANCES[dtype]:
        raise problem(
            f"{path.name}, module {worst}",
            found=f"a relative error of {error:.1e} when read back",
            expected=f"at most {TOLERANCES[dtype]:.0e} in {dtype}",
            advice="Save with dtype fp32: the factors are too small or too large for this dtype.",
        )
    return WrittenFile(path, written.sha256, error)


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
