"""Put the miniature SDXL and the demo's pictures where ComfyUI finds them.

Run by `sandbox.setup` with the sandbox's Python: `python -m sandbox.mini_files`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from .paths import BASE, use_comfyui

SUBJECT_FOLDER = "ziplora_mini_subject"
STYLE_PICTURE = "ziplora_mini_style.png"


def write_files(base: Path = BASE) -> None:
    """Write a pair's pictures with their captions, and the checkpoint if missing or damaged.

    Raises:
        MiniWorldError: the trained model in the repository is missing or damaged.
    """
    from miniworld.checkpoint import CHECKPOINT, ready_checkpoint
    from quality.sheet import as_image
    from quality.subjects import CONTENT_CAPTIONS, PAIRS

    ready_checkpoint(base / "models" / "checkpoints" / CHECKPOINT)
    folder = base / "input" / SUBJECT_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    shown = zip(PAIRS[0].content_pictures(), CONTENT_CAPTIONS, strict=True)
    for number, (picture, caption) in enumerate(shown, start=1):
        as_image(picture).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"{caption}\n")
    as_image(PAIRS[0].style_pictures()[0]).save(base / "input" / STYLE_PICTURE)


if __name__ == "__main__":
    use_comfyui()
    from miniworld.errors import MiniWorldError

    try:
        write_files()
    except MiniWorldError as error:
        sys.exit(str(error))
