"""Files of the cloneofsimo trainer, which number their modules instead of naming them.

    unet:{i}:up   unet:{i}:down   text_encoder:{i}:up   …       a .pt: one list [up0, down0, up1, …]

i counts the modules in the order in which diffusers registered them in the training program: blocks
down, up, then middle. Inside a transformer block this order has changed over the years, and the set
of counted modules depends on the trainer's version. So every known order is compared with a model's
shapes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from torch import Tensor

from ..errors import ZipLoRAError, problem
from .base_model import NUMBERED, older_base
from .safetensors_reader import Entry

T = TypeVar("T", Entry, Tensor)
Shape = Sequence[int]
Targets = Mapping[str, Shape]
"""Shape of each weight of a UNet, by its diffusers path without `.weight`."""

ORDERS = {
    "attn1, attn2": ("attn1", "attn2"),
    "attn1, ff, attn2": ("attn1", "ff", "attn2"),
    "attn1, attn2, ff": ("attn1", "attn2", "ff"),
    "attn1, ff, attn2 with ResNets": ("attn1", "ff", "attn2", "resnets"),
    "attn1, attn2, ff with ResNets": ("attn1", "attn2", "ff", "resnets"),
}
"""Parts that the trainer's versions adapt, in the order of the diffusers version they ran on:
attention alone in December 2022, later GEGLU as well, ResNets in `--use_extended_lora`."""

BLOCK = re.compile(
    r"(?P<side>down|up|mid)_blocks?\.((?P<block>\d+)\.)?(?P<kind>attentions|resnets)\.(?P<n>\d+)\."
    r"(transformer_blocks\.(?P<depth>\d+)\.(?P<part>\w+)\.)?(?P<leaf>.+)"
)
SIDES = ("down", "up", "mid")
LEAVES = {
    **dict.fromkeys(("attn1", "attn2"), ("to_q", "to_k", "to_v", "to_out.0")),
    "ff": ("net.0.proj",),
    "resnets": ("conv1", "time_emb_proj", "conv2", "conv_shortcut"),
}
TEXT_LEAVES = ("k_proj", "v_proj", "q_proj", "out_proj")
"""The order in which transformers' CLIPAttention registers its linears."""


def numbered(content: Sequence[T], source: str) -> dict[str, T]:
    """Name the tensors of a .pt list as the trainer's .safetensors does."""
    network = "text_encoder" if ".text_encoder." in source else "unet"
    return {f"{network}:{i // 2}:{('up', 'down')[i % 2]}": part for i, part in enumerate(content)}


def spell_out(
    tensors: dict[str, T], targets: Targets | None, source: str
) -> tuple[dict[str, T], tuple[str, ...]]:
    """Rename numbered tensors to the keys of diffusers' training scripts; return them and notes.

    Without `targets`, and for any other kind of file, the tensors are returned unchanged.

    Args:
        tensors: every tensor of the file, by key.
        targets: weight shapes of the UNet that the numbered modules are compared with.
        source: the file's name, for messages.

    Raises:
        ZipLoRAError: the numbers have a gap, or not exactly one known order fits the model.
    """
    if targets is None or not any(NUMBERED.fullmatch(key) for key in tensors):
        return tensors, ()
    unet, text = (_pairs(tensors, network, source) for network in ("unet", "text_encoder"))
    names, notes = [], []
    if unet:
        order, paths = _find_order(unet, targets, source)
        names += [f"unet.{path}" for path in paths]
        notes.append(f"cloneofsimo file: {len(unet)} numbered modules in the order {order}")
    if text:
        names += _text_encoder_names(text, source)
        notes.append(f"cloneofsimo file: {len(text)} numbered attention linears of CLIP-L")
    spelled = {
        f"{name}.lora.{half}.weight": tensor
        for name, pair in zip(names, unet + text, strict=True)
        for half, tensor in zip(("up", "down"), pair, strict=True)
    }
    others = {key: t for key, t in tensors.items() if not NUMBERED.fullmatch(key)}
    embeddings = [key for key, tensor in others.items() if len(tensor.shape) == 1]
    if embeddings:
        notes.append(f"embeddings left out: {', '.join(sorted(embeddings))}")
    return spelled | {k: t for k, t in others.items() if k not in embeddings}, tuple(notes)


def module_order(paths: Iterable[str], parts: Sequence[str]) -> list[str]:
    """List the modules in the order in which the trainer counts them.

    Args:
        paths: diffusers paths of a UNet's modules.
        parts: the adapted parts, in the order of a transformer block.
    """
    places = {path: _place(path, parts) for path in paths}
    return sorted((path for path in places if places[path]), key=lambda path: places[path])


def _place(path: str, parts: Sequence[str]) -> tuple[object, ...]:
    """Return a module's position as a sort key; empty when it is not counted."""
    match = BLOCK.fullmatch(path)
    if match is None:
        return ()
    part = match["part"] or match["kind"]
    if part not in parts or match["leaf"] not in LEAVES[part]:
        return ()
    numbers = (int(match[group] or 0) for group in ("n", "depth"))
    block = (SIDES.index(match["side"]), int(match["block"] or 0), match["kind"])
    return (*block, *numbers, parts.index(part), LEAVES[part].index(match["leaf"]))


def _find_order(
    pairs: Sequence[tuple[T, T]], targets: Targets, source: str
) -> tuple[str, list[str]]:
    """Find the one order in which every shape fits; return its name and the paths."""
    orders = {name: module_order(targets, parts) for name, parts in ORDERS.items()}
    fitting = {
        name: sum(_fits(pair, targets[path]) for pair, path in zip(pairs, paths, strict=False))
        for name, paths in orders.items()
    }
    found: dict[tuple[str, ...], str] = {}
    for name, paths in orders.items():
        if fitting[name] == len(pairs) == len(paths):
            found.setdefault(tuple(paths), name)  # e.g. without ff, two orders are the same
    if len(found) == 1:
        ((paths, name),) = found.items()
        return name, list(paths)
    raise _no_order(pairs, source, fitting, list(found.values()))


def _fits(pair: tuple[T, T], weight: Shape) -> bool:
    up, down = (tuple(tensor.shape) for tensor in pair)
    same = up[:1] == tuple(weight[:1]) and down[1:] == tuple(weight[1:])
    return same and up[1:2] == down[:1] and math.prod(up[2:]) == 1


def _no_order(
    pairs: Sequence[tuple[T, T]], source: str, fitting: Mapping[str, int], found: Sequence[str]
) -> ZipLoRAError:
    """Build the error: several orders fit, or none, with the base model and the best fit."""
    if found:
        return problem(
            source,
            found=f"{len(pairs)} numbered modules that fit in {len(found)} orders: "
            + " and ".join(f"'{name}'" for name in found),
            expected="shapes that fit in exactly one order",
            advice="Convert the file with the program that trained it.",
        )
    base = older_base((tuple(up.shape), tuple(down.shape)) for up, down in pairs)
    best = max(fitting, key=lambda name: fitting[name])
    return problem(
        source,
        found=f"{f'a {base}' if base else 'a'} LoRA of the cloneofsimo trainer: at best "
        f"{fitting[best]} of its {len(pairs)} numbered shapes fit (order {best})",
        expected="a LoRA that was trained on the connected model's architecture",
        advice="Pick another LoRA: this one does not fit this model, and nothing was imported.",
    )


def _text_encoder_names(pairs: Sequence[tuple[T, T]], source: str) -> list[str]:
    """Name the attention linears of CLIP-L, which are all square and of one width."""
    shapes = {(tuple(up.shape)[:1], tuple(down.shape)[1:]) for up, down in pairs}
    (out, width), *others = shapes
    if others or not out or out != width or len(pairs) % len(TEXT_LEAVES):
        raise problem(
            f"{source}, text_encoder",
            found=f"{len(pairs)} numbered modules of {len(shapes)} shapes",
            expected="four square linears of one width for each layer of CLIP-L",
            advice="Pick another LoRA: this one was trained on another text encoder.",
        )
    return [
        f"text_encoder.text_model.encoder.layers.{i // 4}.self_attn.{TEXT_LEAVES[i % 4]}"
        for i in range(len(pairs))
    ]


def _pairs(tensors: Mapping[str, T], network: str, source: str) -> list[tuple[T, T]]:
    """List the (up, down) pairs of one network by number; the numbers must have no gap."""
    keys = [key for key in tensors if key.startswith(f"{network}:")]
    count = (len(keys) + 1) // 2
    wanted = [f"{network}:{i}:{half}" for i in range(count) for half in ("up", "down")]
    if missing := sorted(set(wanted) - set(keys)):
        raise problem(
            f"{source}, key {missing[0]}",
            found="no such tensor",
            expected=f"up and down for every number from 0 to {count - 1}",
            advice="Download the file again, or save it again with its trainer: it is incomplete.",
        )
    return [(tensors[wanted[i]], tensors[wanted[i + 1]]) for i in range(0, len(wanted), 2)]
