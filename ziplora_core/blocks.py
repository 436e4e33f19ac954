"""Content and style weights by block of the UNet: B-LoRA's two blocks, presets, a person's own."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from .errors import problem

Blocks = Mapping[str, tuple[float, float]]
"""Content and style weight by block in sgm spelling, e.g. `output_blocks.0.1`; "" is the rest."""

_ORDER = ("time_embed", "label_emb", "input_blocks", "middle_block", "output_blocks", "out")
_PART = "|".join(_ORDER)
_BLOCK = re.compile(rf"\*|({_PART})(\.\w+)*")
_MODULE = re.compile(rf"lora_unet_(({_PART})(_\d+)*(_transformer_blocks_\d+)?)(_\w+)?")
_NUMBERED = re.compile(r"(\D+)(\d*)")
_SHORT = re.compile(r"(input|middle|output)_blocks?_(\d+)")
_DEEP = ("input_blocks.7", "input_blocks.8", "middle_block", "output_blocks.0", "output_blocks.1",
         "output_blocks.2")  # fmt: skip
PRESETS: dict[str, Blocks] = {
    "all": {"": (1.0, 1.0)},
    "b_lora": {"output_blocks.0.1": (1.0, 0.0), "output_blocks.1.1": (0.0, 1.0), "": (0.0, 0.0)},
    "b_lora_protected": {"output_blocks.0.1": (1.0, 0.0), "output_blocks.1.1": (0.0, 1.0)},
    "content_deep_style_shallow": {**dict.fromkeys(_DEEP, (1.0, 0.0)), "": (0.0, 1.0)},
    "content_deep_style_everywhere": {**dict.fromkeys(_DEEP, (1.0, 1.0)), "": (0.0, 1.0)},
}
"""`b_lora`: content and style have one block each (Frenkel et al. 2024, arXiv:2403.14572, sec. 4);
`b_lora_protected`: all other blocks get both. *Deep* blocks see the picture at its smallest."""


def weights_of(blocks: Blocks, name: str) -> tuple[float, float]:
    """Look up a module by its kohya name: the longest block it lies in, else "", else (1, 1)."""
    inside = name.removeprefix("lora_unet_")
    fitting = [b for b in blocks if b and f"{inside}_".startswith(f"{b.replace('.', '_')}_")]
    return blocks.get(max(fitting, key=len, default=""), (1.0, 1.0))


def network_order(names: Iterable[str]) -> list[str]:
    """Sort kohya module names (sgm spelling) as the picture goes through the UNet."""

    def place(name: str) -> list[tuple[int, str]]:
        part = next((n for n, first in enumerate(_ORDER) if name.startswith(first)), len(_ORDER))
        return [(part, ""), *((int(n or -1), text) for text, n in _NUMBERED.findall(name))]

    return sorted(names, key=lambda name: place(name.removeprefix("lora_unet_")))


def split_module(name: str) -> tuple[str, str] | None:
    """Split a kohya module name into its block (one transformer, where there are some) and its
    layer, "" for a block that is one; None for a name that is not the UNet's."""
    found = _MODULE.fullmatch(name)
    return (found[1], (found[5] or "").removeprefix("_")) if found else None


def short_block(name: str) -> str:
    """Name the block of a kohya module as one says it: `in 4`, `mid`, `out 0`; else ""."""
    found = _SHORT.match(name.removeprefix("lora_unet_"))
    if not found:
        return ""
    return "mid" if found[1] == "middle" else f"{found[1].removesuffix('put')} {found[2]}"


def parse_blocks(text: str) -> Blocks:
    """Read one block a line: its name, content weight, style weight; `*` is the rest.

    Raises:
        ZipLoRAError: a line is none of that.
    """
    blocks: dict[str, tuple[float, float]] = {}
    for line in filter(None, (line.split("#")[0].strip() for line in text.splitlines())):
        try:
            name, *weights = line.replace(":", " ").replace(",", " ").split()
            content, style = map(float, weights)
            if not (_BLOCK.fullmatch(name) and math.isfinite(content + style)):
                raise ValueError(name)
            blocks["" if name == "*" else name] = (content, style)
        except ValueError as error:
            raise problem(
                "blocks",
                found=f"“{line}”",
                expected="a block, its content weight and its style weight, as in "
                "“output_blocks.0.1 1 0”; “*” stands for all other blocks",
                advice="Correct the line, or leave the text empty and choose a preset.",
            ) from error
    return blocks
