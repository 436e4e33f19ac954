"""Merges whose content and style have separate prompts: checks, recombination and import."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from ..errors import problem
from ..files.metadata import source_metadata, trigger_words
from ..lora.factors import LoRA, is_unet
from ..lora.merged import MergedLoRA, scale_rows
from ..lora.pair import pair_modules
from .objective import CONCEPTS

_SETTINGS = "ziplora.settings"


def refuse_other_merges(merged: MergedLoRA, name: str) -> None:
    """Refuse a merge whose content and style do not have separate prompts.

    Args:
        merged: the merge to check.
        name: the input's name, for the message.

    Raises:
        ZipLoRAError: the merge is of another kind.
    """
    if not (merged.separable and merged.prompt_separated):
        raise problem(
            name,
            found="a merge whose content and style read one prompt",
            expected="a merge from UnZipLoRA Train, Recombine UnZipLoRA or Import UnZipLoRA",
            advice="Put other merges on the model with Apply Merged LoRA.",
        )


def recombine(content_from: MergedLoRA, style_from: MergedLoRA) -> MergedLoRA:
    """Combine the content half of one merge with the style half of another, mergers unchanged.

    Nothing is trained again (UnZipLoRA, arXiv:2412.04465): features of both halves are not weighed
    against each other.

    Raises:
        ZipLoRAError: a merge of another kind, or halves of different architectures.
    """
    sources = {"content_from": content_from, "style_from": style_from}
    for name, merged in sources.items():
        refuse_other_merges(merged, name)
    content, style = content_from.modules(1.0, 0.0), style_from.modules(0.0, 1.0)
    pairs = pair_modules(content, style)
    for name, pair in pairs.items():
        shapes = [(*f.up.shape[:1], *f.down.shape[1:]) for f in pair.factors if f is not None]
        if shapes[0] != shapes[-1]:
            raise problem(
                f"content_from and style_from, module {name}",
                found=f"updates of weights {shapes[0]} and {shapes[1]}",
                expected="halves of one architecture",
                advice="Recombine merges that were trained on models of the same kind.",
            )
    return MergedLoRA(
        {name: pair for name, pair in pairs.items() if is_unet(name)},
        text_encoder={name: pair for name, pair in pairs.items() if not is_unet(name)},
        metadata=_recombined_metadata(content_from, style_from),
        prompt_separated=True,
    )


def recombine_report(merged: MergedLoRA) -> str:
    """Describe the sources of a recombination and the number of modules in both."""
    met = sum(pair.shared for pair in merged.pairs.values())
    return "\n".join(
        [
            *(f"{concept} of {_name(merged.metadata, concept)}" for concept in CONCEPTS),
            f"{len(merged.pairs)} modules, {met} of them in both",
        ]
    )


def fold_mergers(lora: LoRA, mergers: Mapping[str, Tensor]) -> LoRA:
    """Fold mergers `(out,)` by module into a LoRA, for use with the other half: up' = m ⊙ up."""
    modules = {
        name: replace(factors, up=scale_rows(factors.up, mergers[name]))
        for name, factors in lora.modules.items()
    }
    return replace(lora, modules=modules)


def merge_from_files(content: LoRA, style: LoRA) -> MergedLoRA:
    """Build a merge of a content and a style LoRA, resolved on one model, mergers folded in."""
    metadata = source_metadata(content, style) | {"ziplora.method": "unziplora_imported"}
    pairs = pair_modules(content.modules, style.modules)
    return MergedLoRA(pairs, metadata=metadata, prompt_separated=True)


def _recombined_metadata(content_from: MergedLoRA, style_from: MergedLoRA) -> dict[str, str]:
    """Compose the metadata of a recombination: the names and settings of its sources."""
    sources = [
        LoRA((trigger_words(merged.metadata) or ["UnZipLoRA"])[0], {}, merged.metadata)
        for merged in (content_from, style_from)
    ]
    said = source_metadata(*sources) | {"ziplora.method": "unziplora_recombined"}
    for concept, source in zip(CONCEPTS, sources, strict=True):
        key = f"ziplora.{concept}"
        own = {"name": source.name, "settings": source.metadata.get(_SETTINGS, "")}
        said[key] = source.metadata.get(key, json.dumps(own))  # a recombined half keeps its source
    return said


def _name(metadata: Mapping[str, str], concept: str) -> str:
    try:
        return str(json.loads(metadata[f"ziplora.{concept}"])["name"])
    except (ValueError, TypeError, LookupError):
        return "an unnamed source"  # metadata from other programs: nothing depends on it
