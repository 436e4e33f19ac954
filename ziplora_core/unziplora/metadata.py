"""The metadata of UnZipLoRA Train's three files."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict

from ..dreambooth.metadata import picture_metadata
from ..dreambooth.report import Trained
from .options import UnZipLoRASettings
from .prompts import prompt_of


def unziplora_metadata(trained: Trained, settings: UnZipLoRASettings, part: str) -> dict[str, str]:
    """Compose the metadata strings of one of the three files.

    Args:
        trained: the result of the training.
        settings: the widgets.
        part: `content`, `style` or `merged`.
    """
    prompt, style = prompt_of(settings, part), part == "style"
    rate = settings.style_learning_rate if style else settings.content_learning_rate
    rates = {"learning_rate": rate, "unet_lr": rate, "text_encoder_lr": None}
    captions = Counter({prompt: len(trained.examples)})
    return {
        **picture_metadata(trained, settings, rates, captions, prompt),
        "ziplora.method": "unziplora",
        "ziplora.part": part,
        "ziplora.settings": json.dumps(asdict(settings)),
    }
