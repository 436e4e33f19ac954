"""The LoRA file writer: the layout of each family's files that every loader reads correctly.

Rules (for each there is a loader that reads other files wrongly). Kohya's layout, for SDXL with sgm
names: only `lora_down.weight`, `lora_up.weight` and `alpha`; one alpha for the whole file, the rest
folded into the factors; no tensor that a stock loader does not know. The network's own names, for
families whose files have these: `lora_A.weight`, `lora_B.weight` and an alpha that is the module's
rank, as some programs read no alpha and others fail without one; q, k and v apart, as diffusers'
network has them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import problem, refuse_unknown
from ..lora.factors import NATIVE_PREFIX, LoraFactors, LoraModel, inside_unet, is_unet
from ..lora.magnitude import exceeds
from ..lora.origin import Origin
from .atomic import Part, unwritable, write_bytes
from .compare import relative_error
from .half_precision import comparable, within_fp16
from .key_formats import DIFFUSERS_UNET_NAME
from .reader import read_lora
from .safetensors_writer import file_parts, not_finite

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
TOLERANCES = {"fp16": 1e-2, "bf16": 5e-2, "fp32": 1e-5}
"""Largest relative error of a module that counts as rounding."""
_TEXT_ENCODER = re.compile(r"lora_te[12]_text_(model|projection)")
_QKV = ".attention.qkv"


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
    """Return the one alpha of kohya's layout: the most common rank (the largest in a tie)."""
    ranks = Counter(f.rank for f in modules.values())
    return float(max(ranks, key=lambda rank: (ranks[rank], rank)))


def kohya_tensors(
    modules: Mapping[str, LoraFactors],
    dtype: torch.dtype = torch.float32,
    alpha: float | None = None,
) -> dict[str, Tensor]:
    """Return tensors by key, in the layout that each module's name stands for.

    f = scale · rank / alpha_file,   down' = √|f| down,   up' = sign(f) √|f| up

    Args:
        modules: factors by module name. Those with a prefix of kohya's have one alpha_file; of the
            others, whose names are the network's own, it is each module's rank.
        dtype: dtype of the factors.
        alpha: alpha_file; by default that of `file_alpha`.

    Raises:
        ZipLoRAError: an update is too large for `dtype`, in which loaders compute it.
    """
    alpha = file_alpha(modules) if alpha is None else alpha
    tensors: dict[str, Tensor] = {}
    for name, factors in modules.items():
        if exceeds(factors, torch.finfo(dtype).max):
            raise not_finite(name, dtype)
        native = name.startswith(NATIVE_PREFIX)
        own = float(factors.rank) if native else alpha
        fold = factors.scale * factors.rank / own
        root = abs(fold) ** 0.5
        down, up = factors.down, factors.up
        if fold != 1.0:
            down, up = root * down, (root if fold >= 0 else -root) * up
        if dtype == torch.float16:
            down, up = within_fp16(down, up)
        ends = ("lora_A", "lora_B") if native else ("lora_down", "lora_up")
        for end, factor in zip(ends, (down, up), strict=True):
            tensors[f"{name}.{end}.weight"] = factor.detach().to("cpu", dtype).contiguous()
        tensors[f"{name}.alpha"] = torch.tensor(own)
    return tensors


def lora_model(
    modules: Mapping[str, LoraFactors], metadata: Mapping[str, str], origin: Origin | None = None
) -> LoraModel:
    """Make the LORA_MODEL of a LoRA: its file's layout, float32, with metadata and its origin."""
    return LoraModel(kohya_tensors(modules), metadata, origin)


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
        inside = is_unet(name) and not DIFFUSERS_UNET_NAME.match(inside_unet(name))
        if not (inside or _TEXT_ENCODER.match(name)):
            raise problem(
                f"module {name}",
                found="a name that not every loader knows",
                expected="a module's name in the model itself or in its text encoders",
                advice="Resolve the LoRA against its model first, with Import LoRA.",
            )
    return file_parts(kohya_tensors(with_qkv_apart(modules), dtype), metadata)


def with_qkv_apart(modules: Mapping[str, LoraFactors]) -> dict[str, LoraFactors]:
    """Cut the updates of fused `attention.qkv` layers into those of to_q, to_k and to_v.

    Each third keeps the ranks that reach its rows, and is left out if none does. Layers whose keys
    are narrower than their queries stay whole, as ComfyUI knows no names for their parts.
    """
    apart: dict[str, LoraFactors] = {}
    for name, factors in modules.items():
        stem = name.removesuffix(_QKV)
        thirds = factors.up.chunk(3)
        native = name.startswith(NATIVE_PREFIX) and stem != name
        if not native or any(len(up) != factors.down.shape[1] for up in thirds):
            apart[name] = factors
            continue
        for end, up in zip("qkv", thirds, strict=True):
            used = up.any(0)
            if used.any():
                third = LoraFactors(factors.down[used], factors.scale * up[:, used])
                apart[f"{stem}.attention.to_{end}"] = third
    return apart


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
    parts = lora_parts(modules, metadata, DTYPES[dtype])
    return write_checked(path, parts, with_qkv_apart(modules), dtype)


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
    size = sum(map(len, parts))
    try:
        write_bytes(path, *parts)
    except FileExistsError:
        raise
    except OSError as error:
        raise unwritable(path, size, error) from error
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
