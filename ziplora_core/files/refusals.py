"""Refusal of parametrisations without exact low-rank factors, before any tensor is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Literal

from torch import Tensor

from ..errors import problem
from .key_formats import ModuleKeys
from .safetensors_reader import Entry

BiasAndNorm = Literal["refuse", "drop"]
"""How to treat tensors that shift biases and norms, which a LoRA's factors cannot hold."""

DORA = ("DoRA", "its update depends on the model's weights and is not low-rank")
OFT = ("OFT or BOFT", "it rotates the model's weights instead of adding to them")
IA3 = ("IA3", "it multiplies the model's weights instead of adding to them")
TLORA = ("T-LoRA", "its update is relative to an SVD of the model's weights")
GLORA = ("GLoRA", "its update needs the weights of the model it was trained on")
FULL_KRONECKER = ("LoKr with an undecomposed lokr_w2", "its update is not low-rank")
REPLACED = ("replaced or resized weights", "they do not add to the model's weights")
LORA_BIAS = ("a trained LoRA bias", "the factors of a LoRA hold no bias")
SCALAR = ("a trained scalar", "programs disagree on what it multiplies")

REFUSED = {
    **{role: DORA for role in ("dora_scale", "magnitude")},
    **{role: OFT for role in ("oft_blocks", "oft_diag", "oft_R", "rescale")},
    **{role: IA3 for role in ("weight", "on_input")},
    **{role: TLORA for role in ("tlora_q", "tlora_p", "lambda_layer")},
    **{role: GLORA for role in ("glora_a1", "glora_a2", "glora_b1", "glora_b2", "glora_bm")},
    **{role: REPLACED for role in ("set_weight", "reshape_weight")},
    **{"lokr_w2": FULL_KRONECKER, "lora_bias": LORA_BIAS, "scalar": SCALAR},
}
"""Role → name of the kind, and the reason why it cannot be merged."""

BIAS_AND_NORM_ROLES = ("diff_b", "w_norm", "b_norm")
"""Roles of bias and norm tensors; a one-dimensional `diff`, which ComfyUI's own training writes, is
one as well."""


def usable_modules(
    modules: Iterable[ModuleKeys],
    tensors: Mapping[str, Entry | Tensor],
    source: str,
    bias_and_norm: BiasAndNorm,
) -> tuple[list[ModuleKeys], tuple[str, ...]]:
    """Return the modules that hold factors, without their bias and norm tensors, and notes.

    Args:
        modules: every module of the file.
        tensors: shape and dtype by key.
        source: the file's name, for messages.
        bias_and_norm: whether to refuse a file with bias and norm tensors, or to drop these.

    Raises:
        ZipLoRAError: a kind without exact low-rank factors, with its number of modules; or bias
            and norm tensors that are not to be dropped.
    """
    modules = list(modules)
    _refuse_kinds(modules, tensors, source)
    extras = [k for m in modules for r, k in m.keys.items() if _is_bias_or_norm(r, tensors[k])]
    if extras and bias_and_norm != "drop":
        raise problem(
            f"{source}, key {extras[0]}",
            found=f"bias or norm tensors ({len(extras)} such keys)",
            expected="low-rank factors only, as nothing else can be merged",
            advice="Set bias_and_norm to drop: only the factors are read, the rest is lost.",
        )
    left_out = set(extras)
    usable = []
    for module in modules:
        keys = {role: key for role, key in module.keys.items() if key not in left_out}
        if len(keys) == len(module.keys) or set(keys) - {"alpha"}:
            usable.append(replace(module, keys=keys))
    notes = (f"{len(extras)} bias and norm tensors left out",) if extras else ()
    return usable, notes


def check_tensors(
    modules: Iterable[ModuleKeys], tensors: Mapping[str, Entry | Tensor], source: str
) -> None:
    """Check that every factor is a floating-point matrix or kernel, and no tensor is empty.

    Raises:
        ZipLoRAError: a tensor is neither, or is empty; the message names its key.
    """
    for module in modules:
        for role, key in module.keys.items():
            shape, dtype = list(tensors[key].shape), tensors[key].dtype
            found = expected = ""
            if 0 in shape:
                found, expected = f"an empty tensor {shape}", "a rank of at least 1"
            elif not dtype.is_floating_point and (role != "alpha" or dtype.is_complex):
                found, expected = f"numbers of type {dtype}", "floating-point numbers"
            elif role != "alpha" and len(shape) < 2:
                found, expected = f"the shape {shape}", "a matrix or a kernel"
            if found:
                advice = "Save the LoRA again with the program that made it."
                subject = f"{source}, key {key}"
                raise problem(subject, found=found, expected=expected, advice=advice)


def _refuse_kinds(
    modules: Iterable[ModuleKeys], tensors: Mapping[str, Entry | Tensor], source: str
) -> None:
    """Refuse the first kind that has no exact factors, counting its modules."""
    found: dict[tuple[str, str], list[str]] = {}
    for module in modules:
        kinds = {
            REFUSED[role]: key
            for role, key in module.keys.items()
            if role in REFUSED and not _is_bias_or_norm(role, tensors[key])
        }
        for kind, key in kinds.items():
            found.setdefault(kind, []).append(key)
    if found:
        (kind, reason), keys = next(iter(found.items()))
        raise problem(
            f"{source}, key {keys[0]}",
            found=f"{kind} in {len(keys)} modules",
            expected=f"a plain LoRA, because {reason}",
            advice="Use a plain LoRA, or extract one from a checkpoint this one was baked into.",
        )


def _is_bias_or_norm(role: str, tensor: Entry | Tensor) -> bool:
    return role in BIAS_AND_NORM_ROLES or (role == "diff" and len(tensor.shape) < 2)
