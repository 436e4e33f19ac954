"""The layer choices of the pack: which modules a method works on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from .factors import kohya_name

_ATTENTION = re.compile(r"_(\w+_)?(attn\d?|attention)_\w+$|_single_blocks_\d+_linear[12]$")
"""The linears of attention, by the names of all families: `attn1_to_q` in UNets, `img_attn_qkv`,
`attention_out`, `self_attn_q_proj`, `attn_wq`, … FLUX's single blocks have attention and
feed-forward in one layer."""
_CROSS_KV = re.compile(r"_attn2_to_[kv]$|_cross_attn_[kv](_proj)?$")
_FEED_FORWARD = re.compile(
    r"_\d+_(ff|ffn|ff_context|feed_forward|(img_|txt_)?mlp)_\w+$|_single_blocks_\d+_linear[12]$"
)
_RESNET_CONV = re.compile(r"_(in_layers_2|out_layers_3)$")
_CROSS = re.compile(r"_(attn2|cross_attn)_")
_CROSS_QKV = re.compile(r"_(attn2_to|cross_attn)_[qkv](_proj)?$")
_RESNET = re.compile(r"_(in_layers_2|out_layers_3|emb_layers_1|skip_connection|op|conv)$")
"""All layers of a ResBlock, and the convolutions that halve or double the resolution."""


_MODULATION = re.compile(r"modulation|_adaln_|_mod_", re.IGNORECASE)


def _is_attention(name: str, kernel: int) -> bool:
    return bool(_ATTENTION.search(name)) and not (kernel or _MODULATION.search(name))


def _is_attention_ff(name: str, kernel: int) -> bool:
    found = _ATTENTION.search(name) or _FEED_FORWARD.search(name)
    return bool(found) and not (kernel or _MODULATION.search(name))


def _is_cross(name: str, kernel: int) -> bool:
    return _is_attention(name, kernel) and bool(_CROSS.search(name))


def _is_self(name: str, kernel: int) -> bool:
    """Return whether a layer is attention, but not to the prompt alone."""
    return _is_attention(name, kernel) and not _CROSS.search(name)


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
_SLIDER_CHOICES: dict[str, Callable[[str, int], bool]] = {
    "noxattn": lambda name, kernel: _is_self(name, kernel) or bool(_RESNET.search(name)),
    "xattn": _is_cross,
    "full": lambda name, kernel: _is_attention(name, kernel) or bool(_RESNET.search(name)),
    "selfattn": _is_self,
    "xattn_strict": lambda name, kernel: _is_cross(name, kernel) and bool(_CROSS_QKV.search(name)),
}
SLIDER_LAYERS = (*_SLIDER_CHOICES, *_CHOICES)
"""Concept Sliders' own choices come first: 346, 280, 626, 280 and 210 modules on SDXL. The paper
evaluates `noxattn`, the self-attention and the ResNet blocks. None of the five, not even `full`,
includes the feed-forward layers."""
LAYER_CHOICES = tuple(_CHOICES)
"""`attention` is the ZipLoRA paper's choice: to_q, to_k, to_v, to_out of attn1 and attn2,
560 linears on SDXL."""


def reads_prompt(name: str) -> bool:
    """Return whether a module's input is the prompt: keys and values of a cross-attention."""
    return bool(_CROSS_KV.search(kohya_name(name)))


def choose_layers(choice: str, modules: Iterable[tuple[str, int]]) -> list[str]:
    """Return the names of the modules that belong to a layer choice.

    Args:
        choice: one of `LAYER_CHOICES` or `SLIDER_LAYERS`.
        modules: pairs of module name (sgm names in a UNet) and kernel axes: 0 linear, 2 or 3
            convolution.
    """
    belongs = {**_CHOICES, **_SLIDER_CHOICES}[choice]
    return [name for name, kernel in modules if belongs(kohya_name(name), kernel)]
