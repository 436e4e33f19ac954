"""Content and style weights by block: presets for UNets (B-LoRA's among them) and custom ones."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from ..errors import problem
from .factors import inside_unet, is_unet

Blocks = Mapping[str, tuple[float, float]]
"""Content and style weight by the network's block name, e.g. `output_blocks.0.1`; "": all other
blocks."""

_UNET = ("time_embed", "label_emb", "input_blocks", "middle_block", "output_blocks", "out")
_ORDER = (
    *_UNET,
    *("noise_refiner", "context_refiner", "txtfusion", "llm_adapter"),
    *("double_blocks", "single_blocks", "transformer_blocks", "layers", "blocks"),
)
"""First words of block names, in the order of the network."""
_PART = "|".join(_UNET)
_BLOCK = re.compile(r"\*|[a-z]\w*(\.\w+)*")
_MODULE = re.compile(rf"(({_PART})(_\d+)*(_transformer_blocks_\d+)?)(_\w+)?")
_NUMBERED_BLOCK = re.compile(r"(\w+?_\d+)_(\w+)")
"""A module of a network that is a list of blocks, such as `double_blocks_3_img_attn_qkv`."""
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
`b_lora_protected`: all other blocks get both. *Deep* blocks have the lowest resolution."""


def weights_of(blocks: Blocks, name: str) -> tuple[float, float]:
    """Return the content and style weight of a module, given its kohya name.

    The longest block name that contains the module decides, else the entry "", else (1, 1).
    """
    return blocks.get(_block_of(blocks, name), (1.0, 1.0))


def _block_of(blocks: Blocks, name: str) -> str:
    """Return the longest block name that contains a module, "" if none does."""
    inside = f"{inside_unet(name)}_"
    fitting = [b for b in blocks if b and inside.startswith(f"{b.replace('.', '_')}_")]
    return max(fitting, key=len, default="")


def refuse_other_blocks(blocks: Blocks, names: Iterable[str]) -> None:
    """Refuse weights for blocks of another network, which would do nothing here.

    Args:
        blocks: the weights.
        names: the names of the modules that they are for.

    Raises:
        ZipLoRAError: there are named blocks, and none of them has a module.
    """
    named = [block for block in blocks if block]
    modules = [name for name in names if is_unet(name)]
    if named and modules and not any(_block_of(blocks, name) for name in modules):
        own = {place[0] for name in modules if (place := split_module(name))}
        raise problem(
            "blocks",
            found=f"{', '.join(named[:3])}: no module of this merge is there",
            expected=f"blocks of the model, such as {network_order(own)[0]}",
            advice="The presets name blocks of SDXL: for another model, write its own blocks, one "
            "per line, or choose all.",
        )


def network_order(names: Iterable[str]) -> list[str]:
    """Sort kohya module names (sgm names) from the UNet's input to its output."""

    def place(name: str) -> list[tuple[int, str]]:
        part = next((n for n, first in enumerate(_ORDER) if name.startswith(first)), len(_ORDER))
        return [(part, ""), *((int(n or -1), text) for text, n in _NUMBERED.findall(name))]

    return sorted(names, key=lambda name: place(inside_unet(name)))


def split_module(name: str) -> tuple[str, str] | None:
    """Split a module name into its block and its layer; None for one of a text encoder.

    A transformer block counts as a block of its own. The layer is "" where the block is one layer.
    """
    if not is_unet(name):
        return None
    inside = inside_unet(name)
    if found := _MODULE.fullmatch(inside):
        return found[1], (found[5] or "").removeprefix("_")
    found = _NUMBERED_BLOCK.fullmatch(inside)
    return (found[1], found[2]) if found else (inside, "")


def short_block(name: str) -> str:
    """Return the short name of a kohya module's block (`in 4`, `mid`, `out 0`), "" for others."""
    found = _SHORT.match(inside_unet(name))
    if not found:
        return ""
    return "mid" if found[1] == "middle" else f"{found[1].removesuffix('put')} {found[2]}"


def parse_blocks(text: str) -> Blocks:
    """Parse one block per line: name, content weight, style weight; `*`: all other blocks.

    Empty lines and text after `#` are ignored.

    Raises:
        ZipLoRAError: a line with another form, an unknown block or a weight that is not finite.
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
