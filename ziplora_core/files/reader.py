"""Reader of LoRAs from files, and from the tensors of a training node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from ..errors import ZipLoRAError, problem
from ..lora.factors import LoRA, LoraFactors, LoraModel
from .alpha import COMPONENTS, PeftConfig, check_patterns, module_alpha, peft_configs
from .base_model import BaseGuess, describe_base
from .key_formats import ModuleKeys, group_keys
from .kinds import kind_of, planned_numbers, take_parts, to_factors
from .limits import Limits, check_keys, check_products, check_volume
from .numbered_modules import Targets, numbered, spell_out
from .pickle_reader import is_plain, unpickle
from .refusals import BiasAndNorm, check_tensors, usable_modules
from .safetensors_reader import Entry, read_header, read_tensors

SAFETENSORS = (".safetensors", ".sft")
PICKLES = (".pt", ".pth", ".ckpt", ".bin")
_ADVICE = "Choose a LoRA saved as .safetensors."


@dataclass(frozen=True)
class _Request:
    """What is to be read, and how.

    Args:
        name: the file's name, for messages.
        size: its bytes.
        bias_and_norm: whether to refuse bias and norm tensors, or to drop these.
        limits: the model that the factors have to suit.
    """

    name: str
    size: int
    bias_and_norm: BiasAndNorm
    limits: Limits


PEFT_SETTINGS = "adapter_config.json"
"""The file that PEFT writes beside its tensors."""


@dataclass(frozen=True)
class _Plan:
    """Everything that keys, shapes and dtypes show about a LoRA."""

    modules: list[ModuleKeys]
    base: str
    formats: tuple[str, ...]
    notes: tuple[str, ...]


def read_lora(
    path: str | Path, bias_and_norm: BiasAndNorm = "refuse", targets: Targets | None = None
) -> LoRA:
    """Read a LoRA file of any supported format into exact factors.

    Everything that depends only on keys, shapes and dtypes is checked before the tensors are read.

    Args:
        path: a `.safetensors` file, or a `.pt`, `.ckpt` or `.bin` that holds tensors only.
        bias_and_norm: whether to refuse a file with bias and norm tensors, or to drop these.
        targets: weight shapes of a UNet by diffusers path, needed for a file that numbers its
            modules; they also limit how large the factors may become.

    Raises:
        ZipLoRAError: the file is missing or damaged, is not a LoRA, has no exact low-rank
            factors, or needs memory out of proportion to its size.
    """
    path = Path(path)
    limits = Limits.of(targets.values()) if targets else Limits()
    kind = path.suffix.lower()
    metadata: Mapping[str, str] = {}
    try:
        if path.is_dir():
            raise _unreadable(path.name, "a folder", "the LoRA file inside it")
        if kind not in SAFETENSORS + PICKLES:
            raise _unreadable(path.name, f"a file ending {kind!r}", "a .safetensors file")
        request = _Request(path.name, path.stat().st_size, bias_and_norm, limits)
        if kind in SAFETENSORS:
            with path.open("rb") as file:
                header = read_header(file, path.name)
                entries, _ = spell_out(header.entries, targets, path.name)
                _plan(entries, request)
                tensors, sha256 = read_tensors(file, header, path.name)
                metadata = header.metadata
        else:
            tensors, sha256 = _unpickle(path)
        configs = _configs(metadata, path.name) or _configs_beside(path, tensors)
    except OSError as error:
        found = error.strerror or "a disk error"
        raise _unreadable(str(path), found, "a readable file") from error
    spelled, notes = spell_out(tensors, targets, path.name)
    lora = _read(spelled, metadata, request, configs)
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
        tensors: tensors by key, with the keys of a file. They are not modified.
        metadata: strings as in a file's header; by default those of a `LoraModel`.
        name: name for messages and the report.
        bias_and_norm: whether to refuse a LoRA with bias and norm tensors, or to drop these.

    Raises:
        ZipLoRAError: as `read_lora`.
    """
    if metadata is None:
        metadata = tensors.metadata if isinstance(tensors, LoraModel) else {}
    tensors = _tensors_only(tensors, name)
    size = sum(tensor.nbytes for tensor in tensors.values())
    request = _Request(name, size, bias_and_norm, Limits())
    return _read(tensors, metadata, request, _configs(metadata, name))


def _read(
    tensors: dict[str, Tensor],
    metadata: Mapping[str, str],
    request: _Request,
    configs: Mapping[str, PeftConfig],
) -> LoRA:
    """Convert checked tensors to factors, removing them from `tensors`."""
    plan, name = _plan(tensors, request), request.name
    check_patterns(configs, len(plan.modules), name)
    modules: dict[str, LoraFactors] = {}
    kinds: Counter[str] = Counter()
    for module in plan.modules:
        kind = kind_of(module, name)
        parts = take_parts(module, tensors, name, request.limits)
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


def _plan(tensors: Mapping[str, Entry | Tensor], request: _Request) -> _Plan:
    """Check everything that depends only on keys, shapes and dtypes."""
    name = request.name
    check_keys(tensors, name)
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    base = _base_of_lora(shapes, name)
    grouping = group_keys(shapes, name)
    found = grouping.modules.values()
    usable, notes = usable_modules(found, tensors, name, request.bias_and_norm)
    if not usable:
        raise _unreadable(name, f"{len(tensors)} tensors, none of them a LoRA's", "a LoRA")
    check_tensors(usable, tensors, name)
    check_volume(shapes, request.size, name)
    numbers = sum(planned_numbers(m, shapes, name, request.limits) for m in usable)
    check_products(numbers, request.size, request.limits, name)
    if grouping.skipped:
        owners = sorted({".".join(key.split(".")[:2]) for key in grouping.skipped})
        notes += (f"{len(grouping.skipped)} tensors left out: {', '.join(owners)}",)
    if base.warning:
        notes += (base.warning,)
    return _Plan(usable, base.name, grouping.formats, notes)


def _base_of_lora(shapes: Mapping[str, tuple[int, ...]], name: str) -> BaseGuess:
    """Guess the base model of a LoRA; refuse files that are not LoRAs."""
    base = describe_base(shapes)
    if base.advice:
        subject = f"{name}, key {base.key}"
        raise problem(subject, found=base.name, expected="a LoRA", advice=base.advice)
    return base


def _notes(
    modules: Mapping[str, LoraFactors], kinds: Counter[str], configs: Mapping[str, PeftConfig]
) -> tuple[str, ...]:
    """Report the source of the scale and the converted modules."""
    notes = [f"scale from {source}" for source in dict.fromkeys(c.source for c in configs.values())]
    without = sum(factors.alpha is None for factors in modules.values())
    if without:
        share = "" if without == len(modules) else f" for {without} of {len(modules)} modules"
        notes.append(f"no alpha in file{share}: scale 1")
    if off := sum(factors.alpha == 0 for factors in modules.values()):
        notes.append(f"alpha 0 in {off} of {len(modules)} modules: these are switched off")
    for kind, count in kinds.items():
        if kind != "LoRA":
            notes.append(f"{count} {kind} modules converted exactly")
    return tuple(notes)


def _configs(metadata: Mapping[str, str], name: str) -> dict[str, PeftConfig]:
    text = metadata.get("lora_adapter_metadata")
    return peft_configs(text, f"{name}, lora_adapter_metadata") if text else {}


def _configs_beside(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, PeftConfig]:
    """Read PEFT_SETTINGS beside a file that PEFT wrote, whichever network it is for."""
    beside = path.with_name(PEFT_SETTINGS)
    if not beside.is_file() or not any("base_model.model." in key for key in tensors):
        return {}
    configs = peft_configs(beside.read_text("utf-8", "replace"), f"{path.name}, {beside.name}")
    return dict.fromkeys(COMPONENTS.values(), configs["unet"]) if "unet" in configs else {}


def _unpickle(path: Path) -> tuple[dict[str, Tensor], str]:
    """Read the tensors of a PyTorch file, which may be inside a dictionary or a list."""
    content, sha256 = unpickle(path, _ADVICE)
    if isinstance(content, list):
        content = numbered(content, path.name)
    elif isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    elif isinstance(content, dict) and len(content) == 1:
        (only,) = content.values()
        content = only if isinstance(only, dict) else content
    return _tensors_only(content, path.name), sha256


def _tensors_only(content: object, name: str) -> dict[str, Tensor]:
    """Check that the content is a mapping from text keys to dense tensors."""
    if not isinstance(content, Mapping):
        raise _unreadable(name, f"a {type(content).__name__}", "tensors by key")
    for key, tensor in content.items():
        if not isinstance(key, str) or not is_plain(tensor):
            _base_of_lora({str(key): () for key in content}, name)  # may recognise the file
            found = f"a {type(tensor).__name__}"
            if isinstance(key, str) and isinstance(tensor, Tensor):
                found = "a tensor that is quantised, sparse, nested or without memory"
            raise _unreadable(f"{name}, key {key}", found, "an ordinary tensor under a text key")
    return dict(content)


def _unreadable(subject: str, found: str, expected: str) -> ZipLoRAError:
    return problem(subject, found=found, expected=expected, advice=_ADVICE)
