"""The training that a LoRA in memory comes from, until the LoRA is in a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Origin:
    """Where the training state is kept from which a LoRA can be made again.

    It goes with the LoRA while the LoRA is whole: a smaller or weaker one made from it has none,
    so that a file of that one does not count as a file of the training. It is never written into
    a file.

    Args:
        folder: the training's checkpoint folder.
        step: the number of steps after which the LoRA was made.
        part: `content` or `style` for one of UnZipLoRA's two LoRAs, "" for the whole result.
    """

    folder: Path
    step: int
    part: str = ""
