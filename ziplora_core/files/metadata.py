"""Metadata in the headers of LoRA files: composed, inherited and read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from ..lora.factors import LoRA, LoraFactors
from .base_model import SDXL, SDXL_LIKE, describe_base
from .families import FAMILIES
from .writer import file_alpha

_LONGEST = 200
"""Longest part of a source's string that is taken over, in characters: keeps headers small."""


def lora_metadata(
    modules: Mapping[str, LoraFactors],
    *,
    title: str,
    description: str,
    extra: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Compose the `ss_*` (kohya) and `modelspec.*` strings of a LoRA.

    They contain no date: the same inputs give the same file, bit for bit. Unless `extra` says what
    the LoRA is for, the modules do.

    Args:
        modules: factors to be saved.
        title: stem of the final file's name.
        description: one sentence.
        extra: additional strings (`ziplora.*`, `modelspec.*`); they take precedence.
    """
    ranks = {f.rank for f in modules.values()}
    convolutions = {f.rank for f in modules.values() if f.down.ndim == 4 and f.down.shape[-1] > 1}
    alpha = f"{file_alpha(modules):g}"
    arguments = {"conv_dim": str(max(convolutions)), "conv_alpha": alpha} if convolutions else {}
    shapes = {f"{name}.lora_down.weight": tuple(f.down.shape) for name, f in modules.items()}
    base, *_ = describe_base(shapes).name.split(" or ")
    family = FAMILIES.get(SDXL if base in SDXL_LIKE else base)
    return {
        **(family.metadata if family else {}),
        "format": "pt",
        "ss_v2": "False",
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(ranks.pop()) if len(ranks) == 1 else "Dynamic",
        "ss_network_alpha": alpha,
        "ss_network_args": json.dumps(arguments),
        "ss_output_name": title,
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.title": title,
        "modelspec.description": description,
        **(extra or {}),
    }


def prediction_type(v_prediction: bool, flow: bool) -> dict[str, str]:
    """Return `modelspec.prediction_type`, which knows epsilon and v and no flows."""
    return {} if flow else {"modelspec.prediction_type": "v" if v_prediction else "epsilon"}


_NOT_INHERITED = (
    *("sshs_", "modelspec.hash_", "modelspec.title", "ss_output_name", "ss_session_id"),
    *("ss_network_", "ziplora.ranks", "ziplora.separable", "ziplora.prompt_separated"),
)
"""Prefixes of strings about one file or its tensors; another file gets its own."""


def inherited(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the strings that remain valid when a LoRA is saved again or resized."""
    return {
        key: text
        for key, text in metadata.items()
        if key.startswith(("ss_", "modelspec.", "ziplora.")) and not key.startswith(_NOT_INHERITED)
    }


def source_metadata(content: LoRA, style: LoRA) -> dict[str, str]:
    """Return a merge's metadata about its two sources: names and hashes, never their paths."""
    bases = {
        base
        for lora in (content, style)
        if (base := lora.metadata.get("ss_base_model_version", "")[:_LONGEST]).startswith("sdxl")
    }
    words = [word for lora in (content, style) for word in trigger_words(lora.metadata)]
    said = {"modelspec.merged_from": f"{_title(content)}, {_title(style)}"}
    if len(bases) == 1:
        said["ss_base_model_version"] = bases.pop()
    if words:
        said["modelspec.trigger_phrase"] = ", ".join(words)
        said["ss_tag_frequency"] = json.dumps({"ziplora": {word: 1 for word in words}})
    for role, lora in (("content", content), ("style", style)):
        said[f"ziplora.{role}"] = json.dumps({"name": lora.name, "sha256": lora.sha256})
    return said


def trigger_words(metadata: Mapping[str, str], most: int = 3) -> list[str]:
    """Return a LoRA's trigger words: `modelspec.trigger_phrase`, else its most frequent tags."""
    phrase = metadata.get("modelspec.trigger_phrase", "").strip()
    if phrase:
        return [phrase[:_LONGEST]]
    try:
        folders = json.loads(metadata.get("ss_tag_frequency", "{}"))
        tags = next(iter(folders.values()), {})
        ranked = sorted(tags, key=lambda tag: -float(tags[tag]))
    except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError):
        return []  # other programs' metadata; nothing depends on it
    return [tag.strip()[:_LONGEST] for tag in ranked[:most]]


def pack_ranks(ranks: Mapping[str, tuple[int, int]]) -> str:
    """Encode (content rank, style rank) per module as JSON, with the most common pair once."""
    pairs = list(ranks.values())
    common = max(set(pairs), key=lambda pair: (pairs.count(pair), pair))
    others = {name: pair for name, pair in ranks.items() if pair != common}
    return json.dumps({"default": common, "others": others})


def unpack_ranks(text: str, names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Decode the text of `pack_ranks`; see NOT_PACKED for other texts."""
    packed = json.loads(text)
    pairs = {name: packed["others"].get(name, packed["default"]) for name in names}
    ranks = {name: (content, style) for name, (content, style) in pairs.items()}
    if not all(type(rank) is int and rank >= 0 for pair in ranks.values() for rank in pair):
        raise ValueError("a rank that is no whole number")
    return ranks


NOT_PACKED = (KeyError, ValueError, TypeError, AttributeError, RecursionError)
"""What `unpack_ranks` raises for a text that `pack_ranks` has not written."""


def _title(lora: LoRA) -> str:
    return (lora.metadata.get("modelspec.title") or lora.name)[:_LONGEST]
