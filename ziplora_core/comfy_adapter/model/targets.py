"""The weight of the loaded model that each LoRA module changes, by ComfyUI's own key map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import comfy.lora
import comfy.utils
from torch import nn

from ...errors import problem
from ...files.base_model import refuse_other_base
from ...lora.factors import UNET_PREFIX, LoRA, LoraFactors
from .bases import Place, clip_place, unet_place

_UNET = "diffusion_model."
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
    """Map `lora_unet_<sgm name>` to the weight key, for every linear and every convolution.

    Args:
        model: a `BaseModel` (a ModelPatcher's `.model`).
    """
    shapes = weight_shapes(model)  # the key map also has weights that this model lacks
    return {
        _sgm_name(key): key
        for key in comfy.lora.model_lora_keys_unet(model, {}).values()
        if key.startswith(_UNET) and len(shapes.get(key, ())) > 1
    }


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
    return {names.get(name, name): factors for name, factors in modules.items()}


def diffusers_shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Return the shape of every weight of a `BaseModel`'s UNet by its diffusers path."""
    shapes = weight_shapes(model)
    return {
        path: shapes[key]
        for sgm, path in diffusers_paths(model.model_config.unet_config).items()
        if (key := f"{_UNET}{sgm}.weight") in shapes
    }


def resolve_unet(lora: LoRA, model: Any) -> dict[str, LoraFactors]:
    """Return the UNet factors of a LoRA by sgm name, in the shapes of their weights.

    Raises:
        ZipLoRAError: a module has no weight in this model or does not fit it.
    """
    key_map = comfy.lora.model_lora_keys_unet(model, {})
    return _resolve(lora, lora.unet(), key_map, weight_shapes(model), unet_place(model), _sgm_name)


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
    key_map = comfy.lora.model_lora_keys_clip(encoder, {})
    shapes = weight_shapes(encoder)
    return _resolve(lora, lora.text_encoder(), key_map, shapes, clip_place(clip), None)


def _resolve(
    lora: LoRA,
    modules: Mapping[str, LoraFactors],
    key_map: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
    place: Place,
    rename: Any,
) -> dict[str, LoraFactors]:
    lost = [name for name in modules if key_map.get(name) not in shapes]
    if lost:
        if place.is_sdxl:
            count = f"{len(lost)} of {len(modules)} modules, e.g. {lost[0]}"
            refuse_other_base(lora.name, lora.base, f"{count}: no such weight in {place.name}")
        base = f"; the file looks like a LoRA for {lora.base}" if lora.base else ""
        raise problem(
            f"{lora.name}, {len(lost)} of {len(modules)} modules (e.g. {lost[0]})",
            found=f"no such weight in {place.name}{base}",
            expected="a LoRA trained for the connected checkpoint's architecture",
            advice=place.advice,
        )
    resolved: dict[str, LoraFactors] = {}
    for name, factors in modules.items():
        key = key_map[name]
        fitted = _fit(lora, name, factors, shapes[key], place)
        new_name = rename(key) if rename else name
        if new_name in resolved:
            raise problem(
                f"{lora.name}, module {name}",
                found=f"a second spelling of {new_name}",
                expected="one pair of factors per module",
                advice="Export the LoRA again with one tool.",
            )
        resolved[new_name] = fitted
    return resolved


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
    if place.is_sdxl:
        why = f"{name} does not fit: {found} for a weight {shape}"
        refuse_other_base(lora.name, lora.base, why)
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


def _sgm_name(key: str) -> str:
    return UNET_PREFIX + key.removeprefix(_UNET).removesuffix(".weight").replace(".", "_")
