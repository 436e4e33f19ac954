"""Export of a LoRA with the key names of programs that do not read kohya's.

The scale is stored as in kohya's files: one alpha, the rest folded into the factors. Every program
that reads this alpha, from a tensor of each module or from PEFT's configuration, gets it right. The
public Concept Sliders (github.com/rohitgandikota/sliders, lora.py) have an alpha of 1 for every
file, and one rank; the public ZipLoRA (github.com/mkshing/ziplora-pytorch, utils.py) has no alpha.
"""

from __future__ import annotations

import io
import json
import re
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import problem, refuse_unknown
from ..lora.factors import LoraFactors
from .atomic import Part, unwritable, write_bytes
from .key_formats import name_module
from .reader import PEFT_SETTINGS
from .safetensors_writer import file_parts
from .writer import DTYPES, WrittenFile, file_alpha, kohya_tensors, write_checked

PREFIXES = {
    "comfy": {
        "unet": "diffusion_model.",
        "text_encoder": "text_encoders.clip_l.transformer.",
        "text_encoder_2": "text_encoders.clip_g.transformer.",
    },
    "peft": {"unet": "base_model.model."},
    "diffusers": {n: f"{n}." for n in ("unet", "text_encoder", "text_encoder_2")},
    "sliders": {"unet": "lora_unet_"},
    "ziplora": {"unet": "unet.unet."},
}
"""Key prefix by format and network; a format with one prefix is for the UNet alone."""
SUFFIXES = {"peft": "", "sliders": ".pt"}
"""Suffix of a format's file, otherwise `.safetensors`; PEFT's is a folder."""
SLIDERS_ALPHA = 1.0

PEFT_ENDS = {"lora_down.weight": "lora_A.weight", "lora_up.weight": "lora_B.weight"}
ENDS = {
    "comfy": {end: end for end in ("lora_down.weight", "lora_up.weight", "alpha")},
    "peft": PEFT_ENDS,
    "diffusers": PEFT_ENDS,
    "sliders": {end: end for end in ("lora_down.weight", "lora_up.weight", "alpha")},
    "ziplora": {"lora_down.weight": "lora.down.weight", "lora_up.weight": "lora.up.weight"},
}
"""kohya's key endings → the format's; PEFT keeps alpha in its configuration."""

TEXT_MODULE = re.compile(r"lora_te([12])_(text_projection|text_model_encoder_layers_(\d+)_(\w+))")
TEXT_LEAF = re.compile(r"(self_attn|mlp)_(\w+)")

Place = tuple[str, str]
"""A module's network in diffusers' terms, and its dotted path in that network."""


def export_lora(
    path: Path,
    modules: Mapping[str, LoraFactors],
    unet_paths: Mapping[str, str],
    spelling: str,
    metadata: Mapping[str, str],
    dtype: str,
) -> WrittenFile:
    """Write a LoRA with another program's key names, read it back and compare.

    Args:
        path: the file, or with `peft` the folder that `PeftModel.from_pretrained` takes.
        modules: factors by kohya module name (sgm names); of the UNet only where the format is.
        unet_paths: dotted path of each UNet module: sgm names for `comfy`, else diffusers'.
        spelling: key format: `comfy`, `peft`, `diffusers`, `sliders` or `ziplora`.
        metadata: strings for the header; hashes are added, and with `diffusers` the configuration
            from which `load_lora_weights` takes the scale. A file of `sliders` has no header.
        dtype: `fp16`, `bf16` or `fp32`.

    Raises:
        ZipLoRAError: a module has no name in this format, or as `writer.write_lora`.
        FileExistsError: `path` is taken.
    """
    refuse_unknown("dtype", dtype, DTYPES)
    places = {name: _place(name, unet_paths) for name in modules}
    stems = {name: PREFIXES[spelling][network] + p for name, (network, p) in places.items()}
    if spelling == "sliders":
        stems = {name: stem.replace(".", "_") for name, stem in stems.items()}
        modules = with_one_rank(modules)
    tensors = _spelled(_scaled_tensors(modules, spelling, dtype), stems, ENDS[spelling])
    read_back = {name_module(stems[name])[0]: factors for name, factors in modules.items()}
    configs = _peft_configs(modules, places)
    if spelling == "diffusers":
        fields = {f"{n}.{field}": v for n, config in configs.items() for field, v in config.items()}
        metadata = {**metadata, "lora_adapter_metadata": json.dumps(fields, sort_keys=True)}
    parts = file_parts(tensors, metadata)  # refuses what is not finite
    if spelling == "sliders":
        parts[:] = [_pickled(tensors)]
    if spelling != "peft":
        return write_checked(path, parts, read_back, dtype)
    config = json.dumps(configs["unet"], indent=2, sort_keys=True).encode()
    return _write_adapter(path, config, parts, read_back, dtype)


def _write_adapter(
    path: Path,
    config: bytes,
    parts: list[Part],
    modules: Mapping[str, LoraFactors],
    dtype: str,
) -> WrittenFile:
    """Write PEFT's folder, or nothing: without its tensors it is no adapter."""
    try:
        path.mkdir()
        try:
            write_bytes(path / PEFT_SETTINGS, config)
            return write_checked(path / "adapter_model.safetensors", parts, modules, dtype)
        except BaseException:
            shutil.rmtree(path)
            raise
    except FileExistsError:
        raise
    except OSError as error:
        raise unwritable(path, len(config), error) from error


def with_one_rank(modules: Mapping[str, LoraFactors]) -> dict[str, LoraFactors]:
    """Fill every module up to the largest rank with zeros, which leaves the updates as they are.

    A convolution has at most as many ranks as inputs or outputs, as in the sliders' `LoRAModule`.
    """
    rank = max(factors.rank for factors in modules.values())
    return {name: _filled_up(factors, rank) for name, factors in modules.items()}


def _filled_up(factors: LoraFactors, rank: int) -> LoraFactors:
    if factors.down.ndim > 2:
        rank = min(rank, len(factors.up), factors.down.shape[1])
    more = rank - factors.rank
    if more <= 0:
        return factors
    down = torch.cat([factors.down, factors.down.new_zeros(more, *factors.down.shape[1:])])
    up = torch.cat(
        [factors.up, factors.up.new_zeros(len(factors.up), more, *factors.up.shape[2:])], 1
    )
    return LoraFactors(down, up, factors.scale * rank)


def _scaled_tensors(
    modules: Mapping[str, LoraFactors], spelling: str, dtype: str
) -> dict[str, Tensor]:
    """Return kohya's tensors with the scale where the format's program looks for it."""
    if spelling == "sliders":
        return kohya_tensors(modules, DTYPES[dtype], SLIDERS_ALPHA)
    if spelling != "ziplora":
        return kohya_tensors(modules, DTYPES[dtype])
    alone = (kohya_tensors({name: f}, DTYPES[dtype]) for name, f in modules.items())
    return {key: tensor for tensors in alone for key, tensor in tensors.items()}  # alpha = rank


def _pickled(tensors: Mapping[str, Tensor]) -> bytes:
    buffer = io.BytesIO()
    torch.save(dict(tensors), buffer)
    return buffer.getvalue()


def _place(name: str, unet_paths: Mapping[str, str]) -> Place:
    """Return a module's network and its path there."""
    if name in unet_paths:
        return "unet", unet_paths[name]
    if match := TEXT_MODULE.fullmatch(name):
        number, projection, layer, leaf = match.groups()
        network = "text_encoder" if number == "1" else "text_encoder_2"
        if layer is None:
            return network, projection
        if part := TEXT_LEAF.fullmatch(leaf):
            return network, f"text_model.encoder.layers.{layer}.{part[1]}.{part[2]}"
    raise problem(
        f"module {name}",
        found="a module that other programs have no name for",
        expected="a module of the SDXL UNet, or a linear layer of its text encoders",
        advice="Save it with Save Trained LoRA, or read the LoRA with Import LoRA first.",
    )


def _spelled(
    tensors: Mapping[str, Tensor], stems: Mapping[str, str], ends: Mapping[str, str]
) -> dict[str, Tensor]:
    """Rename the tensors from kohya's keys."""
    return {
        f"{stem}.{end}": tensors[f"{name}.{kohya_end}"]
        for name, stem in stems.items()
        for kohya_end, end in ends.items()
    }


def _peft_configs(
    modules: Mapping[str, LoraFactors], places: Mapping[str, Place]
) -> dict[str, dict[str, object]]:
    """Describe the modules of each network as PEFT's LoraConfig does.

    Whether a text encoder's paths begin with `text_model.` depends on the version of transformers.
    PEFT finds modules by the end of their path, so this prefix is left out.
    """
    ranks: dict[str, dict[str, int]] = {}
    for name, (network, path) in places.items():
        ranks.setdefault(network, {})[path.removeprefix("text_model.")] = modules[name].rank
    configs = {}
    for network, of in ranks.items():
        ((common, _),) = Counter(of.values()).most_common(1)
        configs[network] = {
            "peft_type": "LORA",
            "r": common,
            "lora_alpha": file_alpha(modules),
            "rank_pattern": {path: rank for path, rank in of.items() if rank != common},
            "target_modules": sorted(of),
            "bias": "none",
            "inference_mode": True,
        }
    return configs
