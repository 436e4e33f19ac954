"""SDXL's two text encoders with gated branches, for training."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import comfy.lora
import comfy.model_management
import torch
from comfy.clip_model import CLIPLayer
from torch import Tensor, nn

from ...errors import problem
from ...training.branches import Branches, Gates
from .branch_hooks import BranchHooks
from .private_copy import convert, in_training, private_copy, refuse_patched
from .targets import weight_shapes

_INJECTION = "ziplora_training"
_ATTENTION = re.compile(r"lora_te[12]_text_model_encoder_layers_\d+_self_attn_(q|k|v|out)_proj$")


def text_encoder_targets(clip: Any) -> dict[str, str]:
    """Map `lora_te1_…` and `lora_te2_…` to the weight keys of a CLIP's attention linears.

    diffusers trains the same ones: 48 and 128 on SDXL.

    Raises:
        ZipLoRAError: the CLIP has none of them.
    """
    encoder = clip.cond_stage_model
    weights = weight_shapes(encoder)
    targets = {
        name: key
        for name, key in comfy.lora.model_lora_keys_clip(encoder, {}).items()
        if _ATTENTION.match(name) and key in weights
    }
    if not targets:
        raise problem(
            "clip",
            found=f"{type(encoder).__name__}, which has none of SDXL's two text encoders",
            expected="the CLIP of the checkpoint that is trained",
            advice="Connect the CLIP of Load Checkpoint.",
        )
    return targets


def refuse_weighted(clip: Any, captions: Iterable[str]) -> None:
    """Refuse captions with weighted words, which ComfyUI weights in place, without a gradient.

    Raises:
        ZipLoRAError: a caption has weighted words; the message names the first one.
    """
    for caption in captions:
        parts = clip.tokenize(caption).values()
        if any(token[1] != 1.0 for part in parts for chunk in part for token in chunk):
            raise problem(
                f"caption {caption!r}",
                found="weighted words: (…) or (…:1.2)",
                expected="captions without weights when the text encoders are trained",
                advice="Remove the brackets, or write them as \\( and \\).",
            )


class TrainableTextEncoder:
    """A private copy of CLIP with branches on it.

    Args:
        clip: a CLIP whose patcher is private.
        hooks: the hooks of that patcher.
    """

    def __init__(self, clip: Any, hooks: BranchHooks) -> None:
        self.clip, self.hooks = clip, hooks
        self._tokens: dict[str, Any] = {}

    @property
    def patcher(self) -> Any:
        return self.clip.patcher

    def encode(self, text: str) -> list[list[Any]]:
        """Encode a prompt to CONDITIONING as CLIP Text Encode does, with gradients."""
        if text not in self._tokens:
            self._tokens[text] = self.clip.tokenize(text)
        encoder = self.clip.cond_stage_model
        encoder.reset_clip_options()
        if self.clip.layer_idx is not None:
            encoder.set_clip_options({"layer": self.clip.layer_idx})
        encoder.set_clip_options({"execution_device": self.patcher.load_device})
        self.hooks.gates = Gates()
        try:
            context, pooled = encoder.encode_token_weights(self._tokens[text])[:2]
        finally:
            self.hooks.gates = None
        return [[context, {"pooled_output": pooled}]]


@contextmanager
def trainable_text_encoder(
    clip: Any, branches: Mapping[str, Branches]
) -> Iterator[TrainableTextEncoder]:
    """Open a private, frozen copy of CLIP with branches on it; `training_model` loads it.

    Call it outside inference mode. CLIP's layers add to their input in place, which autograd
    refuses once a norm has saved that input, so hooks pass a copy to each norm.

    Args:
        clip: the user's CLIP, which is not changed.
        branches: branches by weight key.

    Raises:
        ZipLoRAError: there are injections or wrappers on the CLIP, or it cannot be copied.
    """
    refuse_patched(clip.patcher, "clip")
    own = clip.clone()
    own.patcher = private_copy(clip.patcher)
    own.cond_stage_model = own.patcher.model
    convert(own.patcher, own.patcher.model, torch.float32)  # ComfyUI's own compute dtype for it
    own.patcher.model.requires_grad_(False)
    hooks = BranchHooks(branches)
    own.patcher.set_injections(_INJECTION, [hooks.injection()])
    norms = [
        norm.register_forward_pre_hook(_copy_input)
        for layer in own.patcher.model.modules()
        if isinstance(layer, CLIPLayer)
        for norm in (layer.layer_norm1, layer.layer_norm2)
    ]
    try:
        with in_training():
            yield TrainableTextEncoder(own, hooks)
    finally:
        for handle in norms:
            handle.remove()
        own.patcher.eject_model()
        own.patcher.remove_injections(_INJECTION)
        comfy.model_management.unload_model_and_clones(own.patcher)


def _copy_input(_norm: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    return (inputs[0].clone(), *inputs[1:]) if torch.is_grad_enabled() else None
