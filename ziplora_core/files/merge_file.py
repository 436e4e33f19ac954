"""Conversion between a merge and its file, an ordinary LoRA whose content rows come first."""

from __future__ import annotations

import json
from collections.abc import Mapping

from torch import Tensor

from ..errors import problem
from ..lora.factors import LoRA, LoraFactors, is_unet
from ..lora.merged import MergedLoRA
from ..lora.pair import ModulePair
from .metadata import NOT_PACKED, pack_ranks, unpack_ranks
from .writer import with_qkv_apart

_RANKS, _SEPARABLE, _PROMPTS = "ziplora.ranks", "ziplora.separable", "ziplora.prompt_separated"
_KEPT = (
    *("ziplora.", "modelspec.merged_from", "modelspec.trigger_phrase", "modelspec.prediction_type"),
    *("modelspec.architecture", "modelspec.implementation", "modelspec.resolution"),
    *("ss_base_model_version", "ss_tag_frequency"),
)
"""Metadata that a merge keeps when it is loaded and saved again."""


def merged_metadata(merged: MergedLoRA) -> dict[str, str]:
    """Return the metadata that `merged_from_lora` needs to split the file."""
    pairs = {**merged.pairs, **merged.text_encoder}
    content = _ranks({name: pair.content for name, pair in pairs.items() if pair.content})
    style = _ranks({name: pair.style for name, pair in pairs.items() if pair.style})
    names = [*content, *(name for name in style if name not in content)]
    ranks = {name: (content.get(name, 0), style.get(name, 0)) for name in names}
    return {
        **merged.metadata,
        _RANKS: pack_ranks(ranks),
        _SEPARABLE: json.dumps(merged.separable),
        _PROMPTS: json.dumps(merged.prompt_separated),
    }


def _ranks(modules: Mapping[str, LoraFactors]) -> dict[str, int]:
    """Return the rank of every module of the file."""
    return {name: f.rank for name, f in with_qkv_apart(modules).items()}


def merged_from_lora(lora: LoRA) -> MergedLoRA:
    """Split a saved merge into its content and style halves; coefficients are already folded in.

    Raises:
        ZipLoRAError: the file was not written by SaveMergedLoRA.
    """
    try:
        ranks = unpack_ranks(lora.metadata[_RANKS], list(lora.modules))
        separable = bool(json.loads(lora.metadata[_SEPARABLE]))
        prompt_separated = bool(json.loads(lora.metadata.get(_PROMPTS, "false")))
        split = {name: _split(f, *ranks[name]) for name, f in lora.modules.items()}
    except NOT_PACKED as error:
        raise problem(
            lora.name,
            found="no record of content and style ranks (ziplora.ranks) that fits its tensors",
            expected="a file written by Save Merged LoRA",
            advice="Load an ordinary LoRA with ComfyUI's Load LoRA.",
        ) from error
    return MergedLoRA(
        pairs={name: pair for name, pair in split.items() if is_unet(name)},
        text_encoder={name: pair for name, pair in split.items() if not is_unet(name)},
        metadata={k: v for k, v in lora.metadata.items() if k.startswith(_KEPT)},
        separable=separable,
        prompt_separated=prompt_separated,
    )


def _split(factors: LoraFactors, content: int, style: int) -> ModulePair:
    if content + style != factors.rank:
        raise ValueError(f"ranks {content} + {style} of {factors.rank}")

    def half(down: Tensor, up: Tensor) -> LoraFactors | None:
        return LoraFactors(down, factors.scale * up) if len(down) else None

    return ModulePair(
        half(factors.down[:content], factors.up[:, :content]),
        half(factors.down[content:], factors.up[:, content:]),
    )
