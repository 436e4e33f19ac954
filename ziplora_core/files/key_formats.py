"""The key formats of programs that write LoRAs, and the one name that each module gets here.

A key is prefix + module + suffix: `unet.` `down_blocks.….to_q` `.lora_A.weight`.
The suffix is the role of the tensor, the prefix the network; the rest names the module.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import ZipLoRAError, problem
from ..lora.factors import NATIVE_PREFIX

PARTS = (
    *("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
    *("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
    *("diff", "diff_b", "set_weight", "w_norm", "b_norm", "reshape_weight", "scalar"),
    *("oft_blocks", "oft_diag", "oft_R", "rescale", "on_input", "lambda_layer"),
    *("alpha", "dora_scale"),
)
"""Roles whose suffix is a dot and their name, in every program."""

SUFFIXES = {
    "down": (
        ".lora_down.weight",
        ".lora_A.weight",
        ".lora_A",
        "_lora.down.weight",
        ".lora.down.weight",
        ".lora_linear_layer.down.weight",
    ),
    "up": (
        ".lora_up.weight",
        ".lora_B.weight",
        ".lora_B",
        "_lora.up.weight",
        ".lora.up.weight",
        ".lora_linear_layer.up.weight",
    ),
    "mid": (".lora_mid.weight",),
    "lora_bias": (".lora_B.bias",),
    "dense": (".lora.weight",),
    "magnitude": (".lora_magnitude_vector.weight", ".lora_magnitude_vector", ".magnitude"),
    "oft_R": (".oft_R.weight",),
    **{f"glora_{part}": (f".{part}.weight",) for part in ("a1", "a2", "b1", "b2", "bm")},
    **{f"tlora_{part}": (f".{part}_layer.weight",) for part in ("q", "p")},
    "weight": (".weight",),  # IA3's if there is an `.on_input` beside it, else not a LoRA's
}
"""Every other role, with its suffixes."""

ROLE_OF = {suffix: role for role, suffixes in SUFFIXES.items() for suffix in suffixes} | {
    f".{part}": part for part in PARTS
}
LONGEST_FIRST = sorted(ROLE_OF, key=len, reverse=True)

PREFIXES = {
    "lora_unet_": ("lora_unet_", "kohya"),
    "lora_unet.": ("lora_unet_", "kohya"),
    "lycoris_": ("lora_unet_", "LyCORIS names"),
    "model.diffusion_model.": ("lora_unet_", "Comfy-native"),
    "diffusion_model.": ("lora_unet_", "Comfy-native"),
    "transformer.": ("lora_unet_", "diffusers"),
    "lora_transformer_": ("lora_unet_", "OneTrainer"),
    "unet.unet.": ("lora_unet_", "diffusers"),
    "unet.": ("lora_unet_", "diffusers"),
    "lora_te_": ("lora_te1_", "kohya"),
    "lora_te1_": ("lora_te1_", "kohya"),
    "lora_te2_": ("lora_te2_", "kohya"),
    "lora_te3_": ("lora_te3_", "kohya"),
    "text_encoder.": ("lora_te1_", "diffusers"),
    "text_encoder_2.": ("lora_te2_", "diffusers"),
    "text_encoders.clip_l.transformer.": ("lora_te1_", "Comfy-native"),
    "text_encoders.clip_g.transformer.": ("lora_te2_", "Comfy-native"),
    "text_encoders.clip_l.": ("lora_te1_", "Comfy-native"),
    "text_encoders.clip_g.": ("lora_te2_", "Comfy-native"),
    "clip_l.": ("lora_te1_", "OMI"),
    "clip_g.": ("lora_te2_", "OMI"),
    "": ("lora_unet_", "names without a prefix"),
}
"""Prefix in the file → prefix here, and the name of the format; the longest match wins."""

SKIPPED = ("bundle_emb.", "_aux.")
"""Prefixes of keys that do not belong to the LoRA: embeddings, a trainer's own state."""

WRAPPER = re.compile(r"(^|(?<=[._]))(_orig_mod|module|base_model\.model)[._]")
"""The names that torch.compile, data parallelism and PEFT put before a module's path or in it."""
BARE_TEXT_MODULE = re.compile(r"(text_model\.)?encoder\.layers\.(\d+)\.|text_(model|projection)\b")
"""A text encoder's module by itself, as in the folder that PEFT writes for that network alone."""
CLIP_L_LAYERS, CLIP_G_WIDTH = 12, 1280

ADAPTER_NAME = re.compile(r"(\.lora_(?:A|B|magnitude_vector))\.[^.]+(\.weight|\.bias)$")
SGM_NAME = re.compile(r"(input_blocks|middle_block|output_blocks|time_embed|label_emb|out)[._]")
DIFFUSERS_UNET_NAME = re.compile(
    r"((down|up)_blocks|mid_block|conv_(in|out|norm_out)|(time|add)_embedding)[._]"
)
OLD_ATTENTION = re.compile(r"_self_attn_to_(q|k|v|out)$")


@dataclass(frozen=True)
class ModuleKeys:
    """The keys of one module in the file.

    Args:
        name: kohya-style name, e.g. `lora_unet_input_blocks_4_1_…_to_q`.
        stem: common part of its keys in the file.
        path: the stem without its prefix, as PEFT's patterns name the module.
        keys: key of each role, e.g. `{"down": "….lora_A.weight"}`.
    """

    name: str
    stem: str
    path: str
    keys: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Grouping:
    """Every module of a file by name, the formats found, and the keys that are not the LoRA's."""

    modules: dict[str, ModuleKeys]
    formats: tuple[str, ...]
    skipped: tuple[str, ...]


def group_keys(shapes: Mapping[str, Sequence[int]], source: str) -> Grouping:
    """Group the keys of a file by module.

    Args:
        shapes: shape of every tensor, by key.
        source: the file's name, for messages.

    Raises:
        ZipLoRAError: no LoRA format uses a key, or a module has keys in two formats.
    """
    modules: dict[str, ModuleKeys] = {}
    formats, skipped, unknown = [], [], []
    bare = _bare_text_encoder(shapes)
    for key in shapes:
        stem, suffix = split_key(key)
        if key.startswith(SKIPPED):
            skipped.append(key)
        elif not suffix:
            unknown.append(key)
        else:
            name, path, spelling = name_module(stem, bare)
            module = modules.setdefault(name, ModuleKeys(name, stem, path))
            other = module.keys.setdefault(ROLE_OF[suffix], key)
            if stem != module.stem or other != key:
                raise _ambiguous(source, key, next(k for k in module.keys.values() if k != key))
            peft = suffix.startswith((".lora_A", ".lora_B")) and spelling == "diffusers"
            formats.append(f"{spelling} (PEFT)" if peft else spelling)
    unknown += [m.keys["weight"] for m in modules.values() if _is_plain_weight(m)]
    if unknown:
        raise _unknown(source, unknown)
    return Grouping(modules, tuple(dict.fromkeys(formats)), tuple(skipped))


def split_key(key: str) -> tuple[str, str]:
    """Split a key into stem and suffix; the suffix is empty when no LoRA format uses it.

    PEFT may put the adapter's name into the suffix (`.lora_A.default.weight`); it is left out.
    """
    key = ADAPTER_NAME.sub(r"\1\2", key)
    suffix = next((suffix for suffix in LONGEST_FIRST if key.endswith(suffix)), "")
    return key.removesuffix(suffix), suffix


def unwrapped(key: str) -> str:
    """Leave out of a key what programs that wrap the network put into it."""
    return WRAPPER.sub("", key)


def name_module(stem: str, bare_text_encoder: str = "lora_te1_") -> tuple[str, str, str]:
    """Return a module's name, its path without the prefix, and the format's name.

    The name is by kohya's rules; that of a network other than a UNet stays as it is where a file
    has the network's own, `diffusion_model.layers.0.attention.qkv`, as its dots would be lost.

    Args:
        stem: the key without its suffix.
        bare_text_encoder: prefix here of text-encoder modules without a network's name.
    """
    bare = unwrapped(stem)
    prefix = max((p for p in PREFIXES if bare.startswith(p)), key=len)
    target, spelling = PREFIXES[prefix]
    path = bare.removeprefix(prefix)
    if prefix.endswith(NATIVE_PREFIX) and not (
        SGM_NAME.match(path) or DIFFUSERS_UNET_NAME.match(path)
    ):
        return NATIVE_PREFIX + path, path, spelling
    if prefix == "unet." and SGM_NAME.match(path):
        spelling = "OMI"
    if "base_model.model." in stem:
        spelling = "PEFT"
    if not prefix and BARE_TEXT_MODULE.match(path):
        target = bare_text_encoder
    # diffusers used to keep its LoRA inside attention processors: `attn1.processor.to_q`
    rest = path.replace(".processor.", ".").replace(".", "_")
    if target != "lora_unet_":
        rest = OLD_ATTENTION.sub(r"_self_attn_\1_proj", rest)
        whole = rest.startswith(("text_model_", "text_projection"))
        rest = rest if whole else f"text_model_{rest}"
    elif rest.endswith("_to_out"):
        rest += "_0"
    return target + rest, path, spelling


def _bare_text_encoder(shapes: Mapping[str, Sequence[int]]) -> str:
    """Tell the two text encoders of SDXL apart where no key names the network."""
    for key, shape in shapes.items():
        path, suffix = split_key(unwrapped(key))
        if match := BARE_TEXT_MODULE.match(path):
            deep = match[2] is not None and int(match[2]) >= CLIP_L_LAYERS
            wide = suffix and ROLE_OF[suffix] == "down" and list(shape[1:]) == [CLIP_G_WIDTH]
            if deep or wide or path == "text_projection":
                return "lora_te2_"
    return "lora_te1_"


def _is_plain_weight(module: ModuleKeys) -> bool:
    return "weight" in module.keys and "on_input" not in module.keys


def _ambiguous(source: str, key: str, other: str) -> ZipLoRAError:
    return problem(
        f"{source}, key {key}",
        found=f"a second spelling of the module that {other} belongs to",
        expected="one spelling of each module, as ComfyUI would keep only the last",
        advice="Use the file as its trainer wrote it, not one that two files were copied into.",
    )


def _unknown(source: str, keys: list[str]) -> ZipLoRAError:
    return problem(
        f"{source}, key {keys[0]}",
        found=f"an ending that no LoRA format uses ({len(keys)} such keys)",
        expected="endings such as .lora_down.weight, .lora_A.weight or .alpha",
        advice="Check that the file is a LoRA, and save it as a plain one if it is.",
    )
