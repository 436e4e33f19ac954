"""Warnings of prompts that do not ask for what a LoRA has learned."""

from __future__ import annotations

import re
from textwrap import shorten

from ...ziplora_core.files.metadata import trigger_words
from ...ziplora_core.lora.pair import LoRAPair
from .queued import Queued

_SHORTEST = 3
"""Letters of a word that tells a prompt from others."""
_SHOWN = 120
"""Most letters of a prompt in a warning."""


def prompt_warnings(pair: LoRAPair, queued: Queued) -> list[str]:
    """Compare each prompt with the trigger words in the files of the LoRAs that it is to call.

    Args:
        pair: the two LoRAs.
        queued: the node, whose prompts are read as far as they are text.

    Returns:
        a WARNING for each prompt that is empty, or has no word of the trigger words.
    """
    warnings = []
    for name, loras in (
        ("content", [pair.content]), ("style", [pair.style]), ("joint", [pair.content, pair.style]),
    ):  # fmt: skip
        text = queued.words(f"{name}_conditioning")
        if text is None:
            continue
        if not text.strip():
            warnings.append(
                f"WARNING: the {name} prompt is empty: write the words that the LoRA was trained "
                "with"
            )
            continue
        for lora in loras:
            triggers = trigger_words(lora.metadata)
            if triggers and not _words(", ".join(triggers)) & _words(text):
                warnings.append(
                    f"WARNING: the {name} prompt “{shorten(text, _SHOWN)}” has none of the "
                    f"trigger words of {lora.name}: {', '.join(triggers)}"
                )
    return warnings


def _words(text: str) -> set[str]:
    return {word for word in re.findall(r"\w+", text.lower()) if len(word) >= _SHORTEST}
