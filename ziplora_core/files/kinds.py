"""Recognition of every parametrisation of a low-rank update, and its conversion to factors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ZipLoRAError, problem
from ..lora.factors import LoraFactors
from ..lora.magnitude import bound
from .compare import all_finite
from .dense_to_factors import check_dense
from .key_formats import ModuleKeys
from .limits import Limits
from .products import Pair, Parts, dense, loha, lokr, lora

_LARGEST = torch.finfo(torch.float32).max


@dataclass(frozen=True)
class Kind:
    """One parametrisation of an update.

    Args:
        name: usual name.
        ranked: role whose first dimension is the rank that divides alpha; empty when the tensors
            contain the scale.
        factors: function that computes `(up, down)` from the parts.
    """

    name: str
    ranked: str
    factors: Callable[[Parts], Pair]


def kind_of(module: ModuleKeys, source: str) -> Kind:
    """Recognise a module's parametrisation by its roles.

    Raises:
        ZipLoRAError: a part is missing, or there is an extra one.
    """
    roles = frozenset(module.keys) - {"alpha"}
    if roles in KINDS:
        return KINDS[roles]
    several = (parts for parts in KINDS if len(parts) > 1)
    nearest = max(several, key=lambda parts: 2 * len(parts & roles) - len(parts - roles))
    first = next((r for r in module.keys if r != "alpha"), "alpha")
    missing = ", ".join(sorted(nearest - roles))
    found = ", ".join(sorted(roles)) or "alpha"
    raise problem(
        f"{source}, key {module.keys[first]}",
        found=f"{found} without {missing}" if missing else f"the parts {found}",
        expected=f"the parts of a {KINDS[nearest].name}: {', '.join(sorted(nearest))}",
        advice="Save the LoRA again with the program that made it: this file is incomplete.",
    )


def planned_numbers(
    module: ModuleKeys, shapes: Mapping[str, Sequence[int]], source: str, limits: Limits
) -> int:
    """Count the numbers of the factors that a module's product will have; 0 where it has none.

    Meta tensors, which have shapes alone, go through the conversion itself.

    Args:
        module: the module.
        shapes: shape of every tensor of the file, by key.
        source: the file's name, for messages.
        limits: what a product may be as wide as.

    Raises:
        ZipLoRAError: the shapes do not belong together, or are too large.
    """
    kind = kind_of(module, source)
    if kind.factors is lora and "mid" not in module.keys:
        return 0
    keys = {role: key for role, key in module.keys.items() if role != "alpha"}
    meta = {role: torch.empty(shapes[key], device="meta") for role, key in keys.items()}
    parts = Parts(source, module.keys, meta, limits)
    if kind.factors is dense:
        ((role, weight),) = meta.items()
        check_dense(weight, parts.subject(role))
        return 0
    return sum(half.numel() for half in kind.factors(parts))


def take_parts(
    module: ModuleKeys, tensors: dict[str, Tensor], source: str, limits: Limits
) -> Parts:
    """Remove a module's tensors from `tensors`; return them as float32 on the CPU.

    They are removed so that memory holds no more than one module in both dtypes. The tensors of a
    LORA_MODEL may be on a GPU.

    Raises:
        ZipLoRAError: a tensor contains NaN or infinity.
    """
    keys = {role: key for role, key in module.keys.items() if role != "alpha"}
    parts = {role: tensors.pop(key).detach().float().cpu() for role, key in keys.items()}
    for role, tensor in parts.items():
        if not all_finite(tensor):
            raise _unbounded(f"{source}, key {module.keys[role]}", "NaN or infinity")
    return Parts(source, module.keys, parts, limits)


def to_factors(kind: Kind, parts: Parts, alpha: float | None) -> LoraFactors:
    """Convert the parts to factors, with alpha adapted to their rank so that the scale is kept.

    Raises:
        ZipLoRAError: the shapes do not belong together, or the update is infinite in float32.
    """
    up, down = kind.factors(parts)
    if not kind.ranked:
        alpha = float(len(down))
    elif alpha is not None:
        alpha *= len(down) / parts.tensors[kind.ranked].shape[0]
    factors = LoraFactors(down, up, alpha)
    if not bound(factors) <= _LARGEST:  # NaN is not
        raise _unbounded(
            parts.subject(kind.ranked or next(iter(parts.tensors))),
            "an update that is infinite in float32",
        )
    return factors


def _unbounded(subject: str, found: str) -> ZipLoRAError:
    return problem(
        subject,
        found=found,
        expected="finite numbers",
        advice="Use an earlier save of this LoRA: its training broke down.",
    )


HADA = frozenset(("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"))
LOKR = frozenset(("lokr_w1", "lokr_w2_a", "lokr_w2_b"))
LOKR_HALVES = frozenset(("lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b"))

KINDS = {
    frozenset(("down", "up")): Kind("LoRA", "down", lora),
    frozenset(("down", "up", "mid")): Kind("LoCon CP", "down", lora),
    HADA: Kind("LoHa", "hada_w1_b", loha),
    HADA | {"hada_t1", "hada_t2"}: Kind("LoHa CP", "hada_w1_b", loha),
    LOKR: Kind("LoKr", "lokr_w2_b", lokr),
    LOKR | {"lokr_t2"}: Kind("LoKr CP", "lokr_w2_b", lokr),
    LOKR_HALVES: Kind("LoKr", "lokr_w2_b", lokr),
    LOKR_HALVES | {"lokr_t2"}: Kind("LoKr CP", "lokr_w2_b", lokr),
    frozenset(("dense",)): Kind("dense ZipLoRA", "", dense),
    frozenset(("diff",)): Kind("full-weight difference", "", dense),
}
"""Every parametrisation, by the exact set of its modules' roles, without alpha."""
