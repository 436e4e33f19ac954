"""The weight of the loaded model that each LoRA module changes, by ComfyUI's own key map."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import comfy.lora
import comfy.utils
from torch import nn

from ...errors import problem
from ...files.key_formats import name_module
from ...files.same_base import refuse_other_base
from ...lora.factors import NATIVE_PREFIX, UNET_PREFIX, LoRA, LoraFactors, kohya_name
from .bases import Place, clip_place, unet_place
from .family import family_of
from .fused import Part, Target, in_order, joined, key_of, overlapping, rows_of

SDXL_LAYOUT = {
    "num_res_blocks": [2, 2, 2],
    "channel_mult": [1, 2, 4],
    "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_middle": 10,
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
}
"""The block layout of SDXL's UNet, as in ComfyUI's configurations."""
_INPUTS = {4, 9}
"""The channels that ordinary and inpainting UNets take."""


def weight_shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shape of every weight by its key, as the layer computes with it.

    Shapes in a state dict would be those of packed storage, e.g. two NVFP4 values in one byte.
    """
    named = network.named_parameters(remove_duplicate=False)
    return {key: tuple(weight.shape) for key, weight in named}


def unet_targets(model: Any) -> dict[str, str]:
    """Map the name of every module to its weight key, for every linear and every convolution.

    Args:
        model: a `BaseModel` (a ModelPatcher's `.model`).
    """
    named = unet_name(model)
    shapes = weight_shapes(model)  # the key map also has weights that this model lacks
    embeddings = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, nn.Embedding)}
    return {
        named(key): key
        for key in map(key_of, comfy.lora.model_lora_keys_unet(model, {}).values())
        if key.startswith(NATIVE_PREFIX) and key.endswith(".weight")
        if len(shapes.get(key, ())) > 1 and key not in embeddings
    }


def unet_name(model: Any) -> Callable[[str], str]:
    """Return the function that names the module of a weight key, as the family's files do."""
    native = family_of(model).prefix == NATIVE_PREFIX
    return lambda key: _path(key) if native else kohya_name(_path(key))


def _path(key: str) -> str:
    return key.removesuffix(".weight")


def diffusers_paths(unet_config: Mapping[str, Any]) -> dict[str, str]:
    """Map the sgm path of every module to its diffusers path, `input_blocks.4…` → `down_blocks.1…`.

    ComfyUI's map, and so this one, has some modules that the model lacks.
    """
    return {
        sgm.removesuffix(".weight"): path.removesuffix(".weight")
        for path, sgm in comfy.utils.unet_to_diffusers(unet_config).items()
        if sgm.endswith(".weight")
        and not path.startswith("class_embedding.")  # add_embedding's alias
    }


def sgm_named(modules: Mapping[str, LoraFactors]) -> dict[str, LoraFactors]:
    """Give SDXL's modules one name each where no model is at hand; other names stay."""
    names = {
        UNET_PREFIX + path.replace(".", "_"): UNET_PREFIX + sgm.replace(".", "_")
        for sgm, path in diffusers_paths(SDXL_LAYOUT).items()
    }
    named = {kohya_name(name): factors for name, factors in modules.items()}
    return {names.get(name, name): factors for name, factors in named.items()}


def diffusers_shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Return the shape of every weight of a `BaseModel`'s UNet by its diffusers path."""
    shapes = weight_shapes(model)
    return {
        path: shapes[key]
        for sgm, path in diffusers_paths(model.model_config.unet_config).items()
        if (key := f"{NATIVE_PREFIX}{sgm}.weight") in shapes
    }


def resolve_unet(lora: LoRA, model: Any) -> dict[str, LoraFactors]:
    """Return the diffusion model's factors of a LoRA by module name, in the shapes of its weights.

    Raises:
        ZipLoRAError: a module has no weight in this model or does not fit it.
    """
    targets = spelled_targets(comfy.lora.model_lora_keys_unet(model, {}))
    named = unet_name(model)
    return _resolve(lora, lora.unet(), targets, weight_shapes(model), unet_place(model), named)


def resolve_some_unet(lora: LoRA, model: Any) -> dict[str, LoraFactors]:
    """Resolve a LoRA as `resolve_unet` does, and refuse one without UNet modules.

    Raises:
        ZipLoRAError: as in `resolve_unet`, or the LoRA has no UNet modules.
    """
    factors = resolve_unet(lora, model)
    if not factors:
        raise problem(
            lora.name,
            found="no UNet modules",
            expected="a LoRA that changes the UNet",
            advice="Pick another file: text-encoder modules are not used here.",
        )
    return factors


def resolve_text_encoder(lora: LoRA, clip: Any) -> dict[str, LoraFactors]:
    """Return the text-encoder factors of a LoRA by their own names, in the shapes of a CLIP.

    Raises:
        ZipLoRAError: a module has no weight in this CLIP or does not fit it.
    """
    encoder = clip.cond_stage_model
    key_map: dict[str, Target] = comfy.lora.model_lora_keys_clip(encoder, {})
    shapes = weight_shapes(encoder)
    return _resolve(lora, lora.text_encoder(), key_map, shapes, clip_place(clip), None)


def spelled_targets(key_map: Mapping[str, Target]) -> dict[str, Target]:
    """Give ComfyUI's key map the names that modules have here, whatever a file calls them."""
    return {kohya_name(name_module(key)[0]): target for key, target in key_map.items()}


def _resolve(
    lora: LoRA,
    modules: Mapping[str, LoraFactors],
    targets: Mapping[str, Target],
    shapes: Mapping[str, tuple[int, ...]],
    place: Place,
    rename: Callable[[str], str] | None,
) -> dict[str, LoraFactors]:
    known = {name: targets.get(kohya_name(name), "") for name in modules}
    lost = [name for name, target in known.items() if key_of(target) not in shapes]
    if lost:
        count = f"{len(lost)} of {len(modules)} modules, e.g. {lost[0]}"
        why = f"{count}: no such weight in {place.name}"
        refuse_other_base(lora.name, lora.base, place.family, why)
        base = f"; the file looks like a LoRA for {lora.base}" if lora.base else ""
        raise problem(
            f"{lora.name}, {len(lost)} of {len(modules)} modules (e.g. {lost[0]})",
            found=f"no such weight in {place.name}{base}",
            expected="a LoRA trained for the connected checkpoint's architecture",
            advice=place.advice,
        )
    found: dict[str, list[Part]] = {}
    for name, factors in modules.items():
        target = known[name]
        out, *inner = shapes[key_of(target)]
        rows = rows_of(target, out)
        fitted = in_order(target, _fit(lora, name, factors, (len(rows), *inner), place))
        new_name = rename(key_of(target)) if rename else name
        found.setdefault(new_name, []).append(Part(name, rows, fitted))
        if twice := overlapping(found[new_name]):
            raise problem(
                f"{lora.name}, module {twice.name}",
                found=f"a second spelling of {new_name}",
                expected="one pair of factors per module",
                advice="Export the LoRA again with one tool.",
            )
    heights = {name: shapes[key_of(known[parts[0].name])][0] for name, parts in found.items()}
    return {name: joined(parts, heights[name]) for name, parts in found.items()}


def _fit(
    lora: LoRA, name: str, factors: LoraFactors, shape: tuple[int, ...], place: Place
) -> LoraFactors:
    """Check factors against a weight `(out, in, *k)`, and reshape them for it.

    Some writers store a convolution's down flat, `(rank, in·k·k)`, or a linear's with two extra
    axes of 1.
    """
    rank, (out, *inner) = factors.rank, shape
    ones = (1,) * (len(shape) - 2)
    down_size, up_size = factors.down[0].numel(), factors.up.numel()
    if tuple(factors.up.shape[:2]) == (out, rank) and up_size == out * rank:
        flat = factors.down.ndim == 2 or len(shape) == 2
        same_shape = tuple(factors.down.shape[1:]) == tuple(inner)
        size = 1
        for n in inner:
            size *= n
        if same_shape or (flat and down_size == size):
            return replace(
                factors,
                down=factors.down.reshape(rank, *inner),
                up=factors.up.reshape(out, rank, *ones),
            )
    found = f"down {tuple(factors.down.shape)} and up {tuple(factors.up.shape)}"
    why = f"{name} does not fit: {found} for a weight {shape}"
    refuse_other_base(lora.name, lora.base, place.family, why)
    raise problem(
        f"{lora.name}, module {name}",
        found=found,
        expected=f"factors of a weight {shape} of {place.name}",
        advice=f"{_reason(factors, shape)} {place.advice}",
    )


def _reason(factors: LoraFactors, shape: tuple[int, ...]) -> str:
    """Say why factors do not fit a weight."""
    if {factors.down.shape[1], shape[1]} == _INPUTS:
        kinds = "an inpainting checkpoint", "one that is not for inpainting"
        made, here = kinds if factors.down.shape[1] > shape[1] else kinds[::-1]
        return f"The LoRA was trained on {made}, and this is {here}."
    return "The LoRA was trained for another architecture."
