"""Extraction of the difference of two models as a LoRA."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import comfy.lora
import comfy.model_management
import torch
from comfy.model_patcher import get_key_weight
from torch import Tensor

from ...errors import ZipLoRAError, problem
from ...lora.factors import LoraFactors
from ...lora.layers import choose_layers
from ...lora.svd import Approximation, approximate_dense, overall_error
from ..apply.pruned import refuse_pruned
from ..model.bases import refuse_refiner
from ..model.memory_advice import memory_advice, run_or_free_memory
from ..model.private_copy import refuse_patched
from ..model.targets import unet_targets

_WORKSPACE = 2**30
"""Bytes to keep free on the device; SDXL's largest layer has 118 MB in float32."""


@dataclass(frozen=True)
class TwoModels:
    """Two ModelPatchers of one architecture and the weights to compare.

    Args:
        tuned, base: the models, read with their weight patches and not changed.
        modules: the kohya module names by key, for the weights to extract.
        others: the keys of biases, norms and embeddings, which factors cannot hold.
    """

    tuned: Any
    base: Any
    modules: Mapping[str, str]
    others: Sequence[str]


@dataclass(frozen=True)
class Extraction:
    """The difference of a tuned model from its base.

    Args:
        modules: the factors of the layers that differ, by kohya module name, on the CPU.
        layers: the number of compared layers.
        others: the number of biases, norms and embeddings that differ; they are left out.
        seconds: the duration.
    """

    modules: Mapping[str, Approximation]
    layers: int
    others: int
    seconds: float

    def factors(self) -> dict[str, LoraFactors]:
        return {name: part.factors for name, part in self.modules.items()}

    def report(self, rank: int) -> str:
        """Describe the differences and the error at `rank`."""
        narrow = sum(part.factors.rank < rank for part in self.modules.values())
        lines = [
            f"{len(self.modules)} of {self.layers} layers differ: extracted at rank {rank} in "
            f"{self.seconds:.1f} s",
            f"relative error ‖difference − LoRA‖ / ‖difference‖: "
            f"{overall_error(self.modules.values()):.2%} over all layers",
        ]
        if narrow:
            lines.append(f"{narrow} layers are narrower than rank {rank}: extracted at full rank")
        if self.others:
            lines.append(
                f"{self.others} biases, norms and embeddings differ too: a LoRA cannot hold them"
            )
        return "\n".join(lines)


def two_unets(tuned: Any, base: Any, layers: str) -> TwoModels:
    """Pair the weights of two MODELs.

    Args:
        tuned, base: the ModelPatchers.
        layers: one of `LAYER_CHOICES`.

    Raises:
        ZipLoRAError: different architectures, not SDXL, patches that are not weight patches, or a
            pruned LoRA.
    """
    shapes = _same_shapes("model_tuned and model_base", tuned, base)
    refuse_refiner(base.model)
    for model, name in ((tuned, "model_tuned"), (base, "model_base")):
        refuse_patched(model, name)
        refuse_pruned(model, name)
    targets = unet_targets(base.model)
    chosen = choose_layers(layers, [(name, len(shapes[key]) - 2) for name, key in targets.items()])
    others = [key for key in shapes if key not in targets.values()]
    return TwoModels(tuned, base, {targets[name]: name for name in chosen}, others)


def two_text_encoders(tuned: Any, base: Any) -> TwoModels:
    """Pair the weights of two CLIPs: all linear weights of their layers.

    Raises:
        ZipLoRAError: different architectures, or patches that are not weight patches.
    """
    shapes = _same_shapes("clip_tuned and clip_base", tuned.patcher, base.patcher)
    refuse_patched(tuned.patcher, "clip_tuned")
    refuse_patched(base.patcher, "clip_base")
    names = comfy.lora.model_lora_keys_clip(base.patcher.model, {})
    modules = {
        key: name
        for name, key in names.items()
        if name.startswith(("lora_te1_", "lora_te2_")) and key in shapes
    }
    others = [key for key in shapes if key not in modules]
    return TwoModels(tuned.patcher, base.patcher, modules, others)


@memory_advice("Lower the rank")
@torch.no_grad()
def extract(
    parts: Sequence[TwoModels],
    rank: int,
    rng: torch.Generator,
    step: Callable[[int, int], None],
) -> Extraction:
    """Approximate weight_tuned − weight_base of every layer by factors, one layer at a time.

    The work is done on the card, and continues on the CPU once the card is out of memory.

    Args:
        parts: the pairs of UNets and text encoders.
        rank: the rank of the factors; a narrower layer gets its own width.
        rng: the generator for the randomised SVD.
        step: a callback before every layer, given (done, total); it may raise to stop.

    Raises:
        ZipLoRAError: equal models, or a difference that is not finite.
    """
    started, device = time.perf_counter(), comfy.model_management.get_torch_device()
    comfy.model_management.free_memory(_WORKSPACE, device)
    weights = [(part, key) for part in parts for key in (*part.modules, *part.others)]
    modules: dict[str, Approximation] = {}
    others = 0
    for done, (part, key) in enumerate(weights):
        step(done, len(weights))
        compare = partial(_compare, part, key, rank, rng)
        found = run_or_free_memory(partial(compare, device))
        if found is None:  # the card is out of memory
            device = torch.device("cpu")
            found = compare(device)
        if isinstance(found, Approximation):
            modules[part.modules[key]] = found
        else:
            others += found
    if not modules:
        raise _same_models(others)
    layers = sum(len(part.modules) for part in parts)
    return Extraction(modules, layers, others, time.perf_counter() - started)


def patched_weight(patcher: Any, key: str, device: torch.device) -> Tensor:
    """Compute one weight with its patches, float32 on `device`, whether or not it is loaded.

    This does for one weight what `ModelPatcher.get_key_patches` and `comfy.lora.calculate_weight`
    do for a whole model, without its state dict, so that quantised weights can be read too.

    Raises:
        ZipLoRAError: a weight in a quantisation that ComfyUI does not know.
    """
    weight, _, dequantise = get_key_weight(patcher.model, key)
    if key in patcher.backup:  # the model is loaded: this is its weight before the patches
        weight = patcher.backup[key].weight
    if key in patcher.hook_backup:
        weight = patcher.hook_backup[key][0]
    if not weight.is_floating_point():
        raise problem(
            f"weight {key}",
            found=f"{weight.dtype} numbers, as custom loaders quantise (GGUF, bitsandbytes)",
            expected="fp32, fp16, bf16, fp8, or what ComfyUI itself quantises",
            advice="Load the checkpoint with one of ComfyUI's own loaders.",
        )
    weight = comfy.model_management.cast_to_device(weight, device, torch.float32, copy=True)
    if dequantise is not None:
        weight = dequantise(weight, inplace=True)
    return comfy.lora.calculate_weight(patcher.patches.get(key, []), weight, key)


def _compare(
    part: TwoModels, key: str, rank: int, rng: torch.Generator, device: torch.device
) -> Approximation | bool:
    """Approximate the difference of a layer; for other weights, return whether it is not zero."""
    delta = _difference(part, key, device)
    if key not in part.modules or not delta.any():
        return bool(delta.any())
    found = approximate_dense(delta, rank, rng)
    down, up = found.factors.down.cpu(), found.factors.up.cpu()
    return replace(found, factors=LoraFactors(down, up))


def _difference(part: TwoModels, key: str, device: torch.device) -> Tensor:
    delta = patched_weight(part.tuned, key, device) - patched_weight(part.base, key, device)
    if not torch.isfinite(delta).all():
        raise problem(
            f"weight {key}",
            found="NaN or infinity in the tuned or the base model",
            expected="finite weights",
            advice="One of the checkpoints, or a LoRA on it, is broken: load another copy.",
        )
    return delta


def _same_shapes(subject: str, tuned: Any, base: Any) -> dict[str, tuple[int, ...]]:
    """Check that two models have weights of equal names and shapes; return the shapes by key."""
    shapes, others = (
        {
            key: tuple(weight.shape)
            for key, weight in patcher.model.named_parameters()
            if key.endswith((".weight", ".bias"))
        }
        for patcher in (base, tuned)
    )
    unlike = [key for key in {**shapes, **others} if shapes.get(key) != others.get(key)]
    if unlike:
        names = " and ".join(type(patcher.model).__name__ for patcher in (tuned, base))
        first = f"{unlike[0]} {others.get(unlike[0], '-')} and {shapes.get(unlike[0], '-')}"
        raise problem(
            subject,
            found=f"{names}: {len(unlike)} of {len({**shapes, **others})} weights differ in name "
            f"or shape (e.g. {first})",
            expected="two models of one architecture",
            advice="Connect the checkpoint that the tuned one was trained from.",
        )
    return shapes


def _same_models(others: int) -> ZipLoRAError:
    but = f" ({others} biases, norms or embeddings do, which a LoRA cannot hold)" if others else ""
    return problem(
        "model_tuned and model_base",
        found=f"the two models are the same: no layer differs{but}",
        expected="a tuned model and the one it was trained from",
        advice="Connect the tuned checkpoint, or a MODEL with LoRAs on it, to model_tuned; or "
        "choose more layers.",
    )
