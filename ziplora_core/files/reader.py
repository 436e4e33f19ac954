"""Read a LoRA from a file, or from the tensors a training node hands over."""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..errors import ZipLoRAError, problem
from ..lora import LoRA, LoraFactors, LoraModel
from .base_model import BaseGuess, describe_base
from .header import Entry, check_size, read_header, read_tensors
from .indexed import Targets, numbered, spell_out
from .kinds import kind_of, take_parts, to_factors
from .refused import BiasAndNorm, check_tensors, usable_modules
from .scale import PeftConfig, module_alpha, peft_configs
from .spelling import ModuleKeys, group_keys

SAFETENSORS = (".safetensors", ".sft")
PICKLES = (".pt", ".pth", ".ckpt", ".bin")

UNPICKLING_ERRORS = (
    *(pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError, TypeError),
    *(AttributeError, AssertionError, ArithmeticError, struct.error),
)
"""What torch.load raises on code, on damage and on other files."""


@dataclass(frozen=True)
class _Plan:
    """What keys, shapes and number types tell about a LoRA: modules, base, formats and notes."""

    modules: list[ModuleKeys]
    base: str
    formats: tuple[str, ...]
    notes: tuple[str, ...]


def read_lora(
    path: str | Path, bias_and_norm: BiasAndNorm = "refuse", targets: Targets | None = None
) -> LoRA:
    """Read a LoRA file into exact factors, whatever program wrote it.

    Everything that keys, shapes and number types can tell is checked before the tensors are read.

    Args:
        path: a `.safetensors` file, or a `.pt`, `.ckpt` or `.bin` that holds tensors only.
        bias_and_norm: refuse the file for bias and norm tensors, or leave them out.
        targets: weight shapes of a UNet by diffusers path. A file that numbers its modules is read
            with them, and refused without.

    Raises:
        ZipLoRAError: the file is missing, damaged, no LoRA, or has no exact low-rank factors.
    """
    path = Path(path)
    kind = path.suffix.lower()
    metadata: Mapping[str, str] = {}
    try:
        if path.is_dir():
            raise _unreadable(path.name, "a folder", "the LoRA file inside it")
        if kind not in SAFETENSORS + PICKLES:
            raise _unreadable(path.name, f"a file ending {kind!r}", "a .safetensors file")
        if kind in SAFETENSORS:
            with path.open("rb") as file:
                header = read_header(file, path.name)
                entries, _ = spell_out(header.entries, targets, path.name)
                _plan(entries, path.name, bias_and_norm)
                tensors, sha256 = read_tensors(file, header, path.name)
                metadata = header.metadata
        else:
            tensors, sha256 = _unpickle(path)
        configs = _configs(metadata, path.name) or _configs_beside(path, tensors)
    except OSError as error:
        found = error.strerror or "an error of the disk"
        raise _unreadable(str(path), found, "a readable file") from error
    spelled, notes = spell_out(tensors, targets, path.name)
    lora = _read(spelled, metadata, path.name, bias_and_norm, configs)
    formats = ("cloneofsimo",) if notes else lora.formats
    return replace(lora, sha256=sha256, formats=formats, notes=notes + lora.notes)


def lora_from_tensors(
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    name: str = "LORA_MODEL",
    bias_and_norm: BiasAndNorm = "refuse",
) -> LoRA:
    """Read a LoRA from tensors in memory, e.g. the LORA_MODEL of a training node.

    Args:
        tensors: each tensor by its key, spelled as in a file. They are not modified.
        metadata: texts as in a file's header; by default those of a `LoraModel`.
        name: for messages and the report.
        bias_and_norm: refuse it for bias and norm tensors, or leave them out.

    Raises:
        ZipLoRAError: as `read_lora`.
    """
    if metadata is None:
        metadata = tensors.metadata if isinstance(tensors, LoraModel) else {}
    tensors = _tensors_only(tensors, name)
    return _read(tensors, metadata, name, bias_and_norm, _configs(metadata, name))


def _read(
    tensors: dict[str, Tensor],
    metadata: Mapping[str, str],
    name: str,
    bias_and_norm: BiasAndNorm,
    configs: Mapping[str, PeftConfig],
) -> LoRA:
    """Turn checked tensors into factors, taking them out of `tensors`."""
    plan = _plan(tensors, name, bias_and_norm)
    modules: dict[str, LoraFactors] = {}
    kinds: Counter[str] = Counter()
    for module in plan.modules:
        kind = kind_of(module, name)
        parts = take_parts(module, tensors, name)
        alpha = None
        if kind.ranked:
            rank = parts.tensors[kind.ranked].shape[0]
            tensor = tensors.get(module.keys.get("alpha", ""))
            alpha = module_alpha(module, rank, tensor, configs, name)
        modules[module.name] = to_factors(kind, parts, alpha)
        kinds[kind.name] += 1
    formats = (*plan.formats, *(kind for kind in kinds if kind != "LoRA"))
    notes = plan.notes + _notes(modules, kinds, configs)
    return LoRA(name, modules, metadata, formats, notes, base=plan.base)


def _plan(tensors: Mapping[str, Entry | Tensor], name: str, bias_and_norm: BiasAndNorm) -> _Plan:
    """Check everything that keys, shapes and number types can tell."""
    base = _base_of_lora({key: tuple(tensor.shape) for key, tensor in tensors.items()}, name)
    grouping = group_keys(tensors, name)
    usable, notes = usable_modules(grouping.modules.values(), tensors, name, bias_and_norm)
    if not usable:
        raise _unreadable(name, f"{len(tensors)} tensors, none of them a LoRA's", "a LoRA")
    check_tensors(usable, tensors, name)
    for module in usable:
        kind_of(module, name)
    if grouping.skipped:
        owners = sorted({".".join(key.split(".")[:2]) for key in grouping.skipped})
        notes += (f"{len(grouping.skipped)} tensors left out: {', '.join(owners)}",)
    if base.warning:
        notes += (base.warning,)
    return _Plan(usable, base.name, grouping.formats, notes)


def _base_of_lora(shapes: Mapping[str, tuple[int, ...]], name: str) -> BaseGuess:
    """Tell the base of a LoRA, refusing what is none."""
    base = describe_base(shapes)
    if base.advice:
        subject = f"{name}, key {base.key}"
        raise problem(subject, found=base.name, expected="a LoRA", advice=base.advice)
    return base


def _notes(
    modules: Mapping[str, LoraFactors], kinds: Counter[str], configs: Mapping[str, PeftConfig]
) -> tuple[str, ...]:
    """Tell where the scale comes from and what was converted."""
    notes = [f"scale from {source}" for source in dict.fromkeys(c.source for c in configs.values())]
    without = sum(factors.alpha is None for factors in modules.values())
    if without:
        share = "" if without == len(modules) else f" for {without} of {len(modules)} modules"
        notes.append(f"no alpha in file{share}: scale 1")
    for kind, count in kinds.items():
        if kind != "LoRA":
            notes.append(f"{count} {kind} modules converted exactly")
    return tuple(notes)


def _configs(metadata: Mapping[str, str], name: str) -> dict[str, PeftConfig]:
    text = metadata.get("lora_adapter_metadata")
    return peft_configs(text, f"{name}, lora_adapter_metadata") if text else {}


def _configs_beside(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, PeftConfig]:
    """Read `adapter_config.json` beside a file that PEFT itself wrote."""
    beside = path.with_name("adapter_config.json")
    if not beside.is_file() or not any("base_model.model." in key for key in tensors):
        return {}
    return peft_configs(beside.read_text("utf-8", "replace"), f"{path.name}, {beside.name}")


def _unpickle(path: Path) -> tuple[dict[str, Tensor], str]:
    """Read a PyTorch file that holds tensors only; code in it is never run."""
    check_size(path.stat().st_size, path.name)
    data = path.read_bytes()
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except UNPICKLING_ERRORS as error:
        found = f"no readable PyTorch file, or one with code in it ({type(error).__name__})"
        raise _unreadable(path.name, found, "tensors only") from error
    if isinstance(content, list):
        content = numbered(content, path.name)
    elif isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    elif isinstance(content, dict) and len(content) == 1:
        (only,) = content.values()
        content = only if isinstance(only, dict) else content
    return _tensors_only(content, path.name), hashlib.sha256(data).hexdigest()


def _tensors_only(content: object, name: str) -> dict[str, Tensor]:
    """Check that these are dense tensors by text key."""
    if not isinstance(content, Mapping):
        raise _unreadable(name, f"a {type(content).__name__}", "tensors by key")
    for key, tensor in content.items():
        is_tensor = isinstance(tensor, Tensor) and tensor.layout is torch.strided
        if not isinstance(key, str) or not is_tensor:
            _base_of_lora({str(key): () for key in content}, name)  # may know what it is
            found = f"a {type(tensor).__name__}"
            raise _unreadable(f"{name}, key {key}", found, "a tensor under a text key")
    return dict(content)


def _unreadable(subject: str, found: str, expected: str) -> ZipLoRAError:
    advice = "Choose a LoRA saved as .safetensors."
    return problem(subject, found=found, expected=expected, advice=advice)
