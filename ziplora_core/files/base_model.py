"""Recognition of the base model of a file, from its keys and shapes alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .key_formats import ROLE_OF, split_key, unwrapped

SD1, SD2 = "Stable Diffusion 1.x", "Stable Diffusion 2.x"
SDXL, REFINER = "SDXL", "the SDXL refiner"

NUMBERED = re.compile(r"(unet|text_encoder):(\d+):(up|down)")
"""The keys of the cloneofsimo trainer."""
NOT_LORAS = (
    (
        "a LoRA of the cloneofsimo trainer, which numbers its modules",
        f"{NUMBERED.pattern}$",
        "Read it with Import LoRA, which compares its modules with a connected model.",
    ),
    (
        "a textual inversion embedding",
        r"(emb_params|clip_l|clip_g|string_to_(param|token)(\..*)?|<[^>]+>)$",
        "Put it into the embeddings folder and name it in the prompt.",
    ),
    (
        "a Control-LoRA or ControlNet-LLLite",
        r"lora_controlnet$|lllite_|control_model\.",
        "Load it as a ControlNet.",
    ),
    (
        "an IP-Adapter",
        r"(image_proj|ip_adapter)\.",
        "Load it with IP-Adapter nodes.",
    ),
    (
        "a checkpoint",
        r"(first_stage_model|cond_stage_model|conditioner)\.",
        "Load it with Load Checkpoint, and choose a LoRA here.",
    ),
)
"""Name, regular expression for the beginning of a key, advice."""

TRANSFORMERS = (
    ("Stable Cascade", r"lora_prior_"),
    ("HunyuanVideo", r"individual_token_refiner"),
    ("Chroma", r"distilled_guidance_layer"),
    ("FLUX.2", r"double_stream_modulation"),
    ("HiDream", r"double_stream_blocks_"),
    ("AuraFlow", r"double_layers_"),
    ("FLUX.1", r"(double_blocks|single_blocks|single_transformer_blocks)_\d"),
    (
        "Qwen-Image",  # of its 60 blocks, SD 3 has no more than 38, which ComfyUI names otherwise
        r"transformer_blocks_\d+_img_(mlp|mod)|diffusion_model_transformer_blocks_\d+_attn_add"
        r"|transformer_blocks_(3[89]|[45]\d)_attn_",
    ),
    ("Krea 2", r"(^|_)(blocks_\d+_attn_w[qkvo]_|txtfusion_|text_fusion_)"),
    ("Stable Diffusion 3", r"joint_blocks_|transformer_blocks_\d+_attn_add_[qkv]_proj"),
    ("Anima", r"llm_adapter_|(^|_)blocks_\d+_(self|cross)_attn_(q|k|v|output)_proj"),
    ("Wan", r"(^|_)blocks_\d+_(self|cross)_attn"),
    ("Z-Image or Lumina 2", r"layers_\d+_attention|noise_refiner"),
    ("PixArt or LTX-Video", r"(^|_)transformer_blocks_\d+_attn1"),
    ("Stable Diffusion 3 or FLUX.1", r"^lora_te3_"),
)
"""Name, and a regular expression searched in the keys with dots replaced by underscores; the first
match wins."""

UNET_BLOCK = re.compile(r"(input|output|down|up)_blocks_\d|mid_block|middle_block")
ATTENTION = re.compile(
    r"(?P<side>input|output|down|up)_blocks_(?P<block>\d+)_(attentions_)?(?P<part>\d+)"
    r"_transformer_blocks_(?P<depth>\d+)_"
)
CROSS_WIDTHS = {768: SD1, 1024: SD2, 2048: SDXL, 1280: REFINER}
"""In-features of `attn2.to_k` and `to_v`: the width of the prompt embedding."""
SD_WIDTHS = (768, 1024)
"""Those of the models before SDXL."""

DISTILLED_SDXL = "a distilled SDXL"
DISTILLED = {
    ((2, 2, 4, 4), (4, 4, 10, 2, 1, 1)): "SSD-1B",
    ((1, 1, 2, 2), (2, 2, 2, 1, 1, 1)): "Segmind Vega",
    ((2, 5), (5, 5, 2, 2)): "KOALA 700M",
    ((2, 6), (6, 6, 2, 2)): "KOALA 1B",
}
"""Number of transformer blocks per attention block (input side, output side) of distilled models
with SDXL's key names."""
SDXL_LIKE = frozenset(("", SDXL, DISTILLED_SDXL, *DISTILLED.values()))
"""Names of bases whose LoRAs may fit SDXL, unknown ones included."""


@dataclass(frozen=True)
class BaseGuess:
    """The guess that `describe_base` makes about a file.

    Args:
        name: base model of the LoRA, or the kind of file when it is not a LoRA; empty when unknown.
        advice: advice for the user; set only when the file is not a LoRA.
        key: deciding key, for messages; set only when the file is not a LoRA.
        warning: reason why the LoRA may not suit SDXL although names and shapes fit.
    """

    name: str = ""
    advice: str = ""
    key: str = ""
    warning: str = ""


def describe_base(shapes: Mapping[str, Sequence[int]]) -> BaseGuess:
    """Guess the base model of a file.

    Args:
        shapes: shape of every tensor, by key.
    """
    shapes = {unwrapped(key): shape for key, shape in shapes.items()}
    names = [key.replace(".", "_") for key in shapes]
    if other := _not_a_lora(shapes):
        return other
    if any("motion_modules" in n and "temporal_transformer" in n for n in names):
        return BaseGuess("AnimateDiff's motion modules")
    is_unet = any(UNET_BLOCK.search(name) for name in names)
    for model, pattern in TRANSFORMERS[: 1 if is_unet else None]:
        if any(re.search(pattern, name) for name in names):
            return BaseGuess(model)
    name = _by_width(shapes) or _by_position(names) or _by_text_encoder(shapes)
    distilled = _distilled(names) if name == SDXL else ""
    if not distilled:
        return BaseGuess(name)
    return BaseGuess(distilled, warning=f"its layers are those of {distilled}, not of full SDXL")


def _not_a_lora(shapes: Mapping[str, Sequence[int]]) -> BaseGuess | None:
    """Recognise a file that is not a LoRA: by typical keys, or because no key is a LoRA's."""
    if base := _numbered_base(shapes):
        return BaseGuess(base)
    for name, pattern, advice in NOT_LORAS:
        key = next((key for key in shapes if re.match(pattern, key)), None)
        if key is not None:
            return BaseGuess(name, advice, key)
    roles = {key: _role(key) for key in shapes}
    plain = [key for key, role in roles.items() if role == "weight"]
    is_model = set(roles.values()) <= {"weight", ""}
    diffusion = [key for key in plain if key.startswith("model.diffusion_model.")]
    if diffusion or (plain and is_model):
        key = (diffusion or plain)[0]
        advice = "Load it with Load Checkpoint or Load Diffusion Model, and choose a LoRA here."
        return BaseGuess("a whole model", advice, key)
    return None


def older_base(pairs: Iterable[tuple[Sequence[int], Sequence[int]]]) -> str:
    """Recognise the base of a file with numbered modules, if it is older than SDXL.

    The inputs of `attn2.to_k` and `to_v` have the prompt's width; a text encoder's are square.

    Args:
        pairs: shapes of up and down of every module.
    """
    widths = {down[1] for up, down in pairs if len(down) == 2 and up and down[1] != up[0]}
    return next((CROSS_WIDTHS[width] for width in SD_WIDTHS if width in widths), "")


def _numbered_base(shapes: Mapping[str, Sequence[int]]) -> str:
    downs = [key for key in shapes if NUMBERED.fullmatch(key) and key.endswith(":down")]
    ups = [key.removesuffix("down") + "up" for key in downs]
    return older_base(
        (shapes[u], shapes[d]) for u, d in zip(ups, downs, strict=True) if u in shapes
    )


def _role(key: str) -> str:
    suffix = split_key(key)[1]
    return ROLE_OF[suffix] if suffix else ""


def _in_features(shapes: Mapping[str, Sequence[int]]) -> list[tuple[str, int]]:
    """List the keys that show their module's number of input features, with that number."""
    telling = ("down", "hada_w1_b", "diff", "dense")
    return [(k, shape[1]) for k, shape in shapes.items() if _role(k) in telling and len(shape) > 1]


def _by_width(shapes: Mapping[str, Sequence[int]]) -> str:
    """Recognise the UNet by the in-features of its attention."""
    cross, own = set(), set()
    for key, width in _in_features(shapes):
        if re.search(r"attn2.*to_[kv]", key):
            cross.add(width)
        elif re.search(r"attn[12].*to_[qkv]", key):
            own.add(width)
    models = {CROSS_WIDTHS[width] for width in cross if width in CROSS_WIDTHS}
    if len(models) == 1:
        return models.pop()
    if 320 in own:
        return f"{SD1} or {SD2}"
    if own & {384, 768, 1536}:
        return REFINER
    return SDXL if own == {640, 1280} else ""


def _by_position(names: Sequence[str]) -> str:
    """Recognise the UNet by the positions and depths of its attention blocks."""
    for name in names:
        if match := ATTENTION.search(name):
            side, block, depth = match["side"], int(match["block"]), int(match["depth"])
            outside = {"down": block == 0, "up": block > 1, "input": block < 3, "output": block > 5}
            if outside[side]:
                return f"{SD1} or {SD2}"
            if depth > 0:
                return SDXL
    return ""


def _by_text_encoder(shapes: Mapping[str, Sequence[int]]) -> str:
    """Recognise the model by its text encoders."""
    if any(key.startswith(("lora_te2_", "text_encoder_2.")) for key in shapes):
        return SDXL
    widths = {
        width
        for key, width in _in_features(shapes)
        if key.startswith("lora_te_") and "self_attn" in key
    }
    return {768: SD1, 1024: SD2}.get(widths.pop(), "") if len(widths) == 1 else ""


def _distilled(names: Sequence[str]) -> str:
    """Return the name of the distilled SDXL model with these attention depths, if any."""
    depths: dict[tuple[bool, int, int], int] = {}
    for name in names:
        if match := ATTENTION.search(name):
            into = match["side"] in ("input", "down")
            block = (into, int(match["block"]), int(match["part"]))
            depths[block] = max(depths.get(block, 0), int(match["depth"]) + 1)
    sides = tuple(
        tuple(depths[block] for block in sorted(depths) if block[0] is into)
        for into in (True, False)
    )
    if sides in DISTILLED:
        return DISTILLED[sides]
    middle = any(re.search(r"middle_block_1_|mid_block_attentions_", name) for name in names)
    return "" if middle or not all(sides) else DISTILLED_SDXL
