"""The one file writer: a LoRA in kohya's layout with sgm names, which every loader reads right.

Rules (each is a loader that reads anything else wrongly): only `lora_down.weight`,
`lora_up.weight` and `alpha`; one alpha for the whole file, the rest folded into the factors;
no tensor a stock loader would not know.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from ..errors import problem
from ..lora import LoraFactors, LoraModel
from ..low_rank import inner_product
from .atomic import write_bytes
from .reader import read_lora

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
TOLERANCES = {"fp16": 1e-2, "bf16": 5e-2, "fp32": 1e-5}
"""How far rounding may change a module; more than this is another LoRA."""
_WRITABLE = re.compile(
    r"lora_unet_(input_blocks|middle_block|output_blocks|time_embed|label_emb|out)_"
    r"|lora_te[12]_text_(model|projection)"
)


@dataclass(frozen=True)
class WrittenFile:
    """A file that was written, read back and compared.

    Args:
        path: where it is.
        sha256: of the whole file.
        error: largest relative error ‖delta_file − delta‖_F / ‖delta‖_F over the modules.
    """

    path: Path
    sha256: str
    error: float


def file_alpha(modules: Mapping[str, LoraFactors]) -> float:
    """The file's one alpha: the most common rank (the larger one of a tie)."""
    ranks = Counter(f.rank for f in modules.values())
    return float(max(ranks, key=lambda rank: (ranks[rank], rank)))


def kohya_tensors(
    modules: Mapping[str, LoraFactors], dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Lay a LoRA out as kohya does, with one alpha; the rest of each scale goes into the factors.

    f = scale · rank / alpha_file,   down' = √|f| down,   up' = sign(f) √|f| up
    """
    alpha = file_alpha(modules)
    tensors: dict[str, Tensor] = {}
    for name, factors in modules.items():
        fold = factors.scale * factors.rank / alpha
        root = abs(fold) ** 0.5
        down, up = factors.down, factors.up
        if fold != 1.0:
            down, up = root * down, (root if fold >= 0 else -root) * up
        tensors[f"{name}.lora_down.weight"] = down.detach().to("cpu", dtype).contiguous()
        tensors[f"{name}.lora_up.weight"] = up.detach().to("cpu", dtype).contiguous()
        tensors[f"{name}.alpha"] = torch.tensor(alpha)
    return tensors


def lora_model(modules: Mapping[str, LoraFactors], metadata: Mapping[str, str]) -> LoraModel:
    """Make the LORA_MODEL of a LoRA: kohya's layout, float32, with what it says of itself."""
    return LoraModel(kohya_tensors(modules), metadata)


def lora_bytes(
    modules: Mapping[str, LoraFactors],
    metadata: Mapping[str, str],
    dtype: torch.dtype = torch.float32,
) -> bytes:
    """Serialise a LoRA with its hashes in the metadata.

    Raises:
        ZipLoRAError: a module name no loader knows, or a factor that is not finite in `dtype`.
    """
    for name in modules:
        if not _WRITABLE.match(name):
            raise problem(
                f"module {name}",
                found="a name outside the SDXL UNet and its text encoders",
                expected="lora_unet_input_blocks_…, lora_te1_… or lora_te2_…",
                advice="Resolve the LoRA against its model first, with Import LoRA.",
            )
    return file_bytes(kohya_tensors(modules, dtype), metadata)


def file_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Serialise tensors, all factors of one dtype, with their hashes in the metadata.

    Raises:
        ZipLoRAError: one of them is not finite.
    """
    for key, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise problem(
                key,
                found=f"NaN or infinity in {tensor.dtype}",
                expected="finite factors",
                advice="Save with dtype fp32 or bf16; if it stays, the merge itself failed.",
            )
    data = safetensors.torch.save(dict(tensors))
    head = _header(data, {**metadata, **_hashes(data, metadata)})
    return head + memoryview(data)[_body_start(data) :]


def write_lora(
    path: Path, modules: Mapping[str, LoraFactors], metadata: Mapping[str, str], dtype: str
) -> WrittenFile:
    """Write a LoRA file atomically, never over another one, then read it back and compare.

    Args:
        path: the final `.safetensors` name.
        modules: factors by kohya module name, sgm spelling.
        metadata: strings only; hashes are added.
        dtype: `fp16`, `bf16` or `fp32`.

    Raises:
        ZipLoRAError: not finite, not writable, or the file does not read back as it was written.
        FileExistsError: `path` is taken.
    """
    return write_checked(path, lora_bytes(modules, metadata, DTYPES[dtype]), modules, dtype)


def write_checked(
    path: Path, data: bytes, modules: Mapping[str, LoraFactors], dtype: str
) -> WrittenFile:
    """Write the bytes of a LoRA file as `write_lora` does, whatever their spelling.

    Args:
        path: the final name.
        data: the whole file.
        modules: what is to be read back, by the names our reader gives.
        dtype: what its factors are stored in.

    Raises:
        ZipLoRAError, FileExistsError: as `write_lora`.
    """
    try:
        write_bytes(path, data)
    except FileExistsError:
        raise
    except OSError as error:
        raise problem(
            str(path),
            found=f"{error.strerror or error} while writing {len(data):,} bytes",
            expected="a folder with space that can be written to",
            advice="Free some space, or choose a shorter name, and queue again: the result is "
            "cached, nothing is lost.",
        ) from error
    written = read_lora(path)
    errors = {name: relative_error(written.modules[name], f) for name, f in modules.items()}
    worst = max(errors, key=lambda name: errors[name])
    if (error := errors[worst]) > TOLERANCES[dtype]:
        path.unlink()
        raise problem(
            f"{path.name}, module {worst}",
            found=f"a relative error of {error:.1e} when it was read back",
            expected=f"at most {TOLERANCES[dtype]:.0e} in {dtype}",
            advice="Save with dtype fp32: the factors are too small or too large for this one.",
        )
    return WrittenFile(path, written.sha256, error)


def relative_error(got: LoraFactors, want: LoraFactors) -> float:
    """‖delta_got − delta_want‖_F / ‖delta_want‖_F, from the factors in float64."""
    total = inner_product(want, want)
    difference = inner_product(got, got) - 2 * inner_product(got, want) + total
    return (max(difference, 0.0) / total) ** 0.5 if total > 0 else float(difference > 0)


def _hashes(data: bytes, metadata: Mapping[str, str]) -> dict[str, str]:
    """SHA-256 of the tensors' bytes as every tool computes it, and kohya's old short hash: 8 hex
    digits over 64 KiB at 1 MiB of the file that has only the `ss_` metadata."""
    ss_only = {key: value for key, value in metadata.items() if key.startswith("ss_")}
    head, body = _header(data, ss_only), memoryview(data)[_body_start(data) :]
    digest = hashlib.sha256(body).hexdigest()
    start, end = (max(0, at - len(head)) for at in (0x100000, 0x110000))
    legacy = hashlib.sha256(head[0x100000:0x110000] + body[start:end]).hexdigest()[:8]
    return {
        "sshs_model_hash": digest,
        "sshs_legacy_hash": legacy,
        "modelspec.hash_sha256": f"0x{digest}",
    }


def _header(data: bytes, metadata: Mapping[str, str]) -> bytes:
    """Build the header of a serialised file again, with metadata in sorted order.

    The library writes it in the order of a hash map, another one in every process; the same merge
    is to give the same bytes.
    """
    entries = json.loads(data[8 : _body_start(data)])
    header = {"__metadata__": dict(sorted(metadata.items())), **entries}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _body_start(data: bytes) -> int:
    (header,) = struct.unpack("<Q", data[:8])
    return 8 + header
