"""Which modules a method works on: the layer choices of the whole pack."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

_ATTENTION = re.compile(r"_attn[12]_to_(q|k|v|out_0)$")
_CROSS_KV = re.compile(r"_attn2_to_[kv]$")
_FEED_FORWARD = re.compile(r"_ff_net_(0_proj|2)$")
_RESNET_CONV = re.compile(r"_(in_layers_2|out_layers_3)$")


def _is_attention(name: str, kernel: int) -> bool:
    return bool(_ATTENTION.search(name))


def _is_attention_ff(name: str, kernel: int) -> bool:
    return bool(_ATTENTION.search(name) or _FEED_FORWARD.search(name))


_CHOICES: dict[str, Callable[[str, int], bool]] = {
    "attention": _is_attention,
    "attention_without_cross_kv": lambda name, kernel: (
        _is_attention(name, kernel) and not _CROSS_KV.search(name)
    ),
    "attention_ff": _is_attention_ff,
    "extended": lambda name, kernel: (
        _is_attention_ff(name, kernel) or bool(_RESNET_CONV.search(name))
    ),
    "all_linear": lambda name, kernel: kernel == 0,
    "all": lambda name, kernel: True,
}
LAYER_CHOICES = tuple(_CHOICES)
"""`attention` is the paper's: to_q, to_k, to_v, to_out of attn1 and attn2, 560 linears on SDXL."""


def choose_layers(choice: str, modules: Iterable[tuple[str, int]]) -> list[str]:
    """Name the modules that belong to a layer choice.

    Args:
        choice: one of `LAYER_CHOICES`.
        modules: kohya module name (sgm spelling) and kernel axes: 0 linear, 2 convolution.
    """
    belongs = _CHOICES[choice]
    return [name for name, kernel in modules if belongs(name, kernel)]
