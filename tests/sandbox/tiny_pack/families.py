"""Small models of two families beside SDXL's, and the small text encoders of three.

ComfyUI's own loader reads the families' sizes from a file only in part, so the tiny models are
recognised by theirs. FLUX.1 needs no entry: its sizes are all read from the file.
"""

from __future__ import annotations

from typing import Any, ClassVar

import comfy.sd
import comfy.supported_models
import torch
from comfy.supported_models_base import ClipTarget
from comfy.text_encoders import flux, qwen_image, z_image
from torch import nn

WIDTH, POOLED = 64, 32
"""Width of a prompt's tokens and of its pooled output."""

Z_IMAGE: dict[str, Any] = {
    "image_model": "lumina2", "patch_size": 2, "in_channels": 16, "dim": 256,
    "cap_feat_dim": WIDTH, "n_layers": 2, "n_refiner_layers": 1, "qk_norm": True,
    "n_heads": 4, "n_kv_heads": 4, "axes_dims": [16, 24, 24], "axes_lens": [64, 64, 64],
    "rope_theta": 256.0, "ffn_dim_multiplier": 0.25, "multiple_of": 32,
    "z_image_modulation": True, "time_scale": 1000.0, "pad_tokens_multiple": 32,
}  # fmt: skip
QWEN_IMAGE: dict[str, Any] = {
    "image_model": "qwen_image", "in_channels": 64, "num_layers": 3,
    "attention_head_dim": 32, "num_attention_heads": 2, "joint_attention_dim": WIDTH,
    "axes_dims_rope": (8, 12, 12),
}  # fmt: skip


class TinyZImage(comfy.supported_models.ZImage):
    """Z-Image, recognised by its tiny width."""

    unet_config: ClassVar[dict[str, Any]] = {"image_model": "lumina2", "dim": Z_IMAGE["dim"]}

    def __init__(self, unet_config: dict[str, Any]) -> None:
        super().__init__({**unet_config, **Z_IMAGE})


class TinyQwenImage(comfy.supported_models.QwenImage):
    """Qwen-Image, recognised by its few layers."""

    unet_config: ClassVar[dict[str, Any]] = {
        "image_model": "qwen_image",
        "num_layers": QWEN_IMAGE["num_layers"],
    }

    def __init__(self, unet_config: dict[str, Any]) -> None:
        super().__init__({**unet_config, **QWEN_IMAGE})


_LLAMA = {
    "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip
_T5 = {"d_model": WIDTH, "d_ff": 2 * WIDTH, "d_kv": 16, "num_heads": 4, "num_layers": 2}
_CLIP_L = {
    "hidden_size": POOLED, "intermediate_size": 2 * POOLED, "num_attention_heads": 2,
    "num_hidden_layers": 3, "projection_dim": POOLED,
}  # fmt: skip
TEXT_ENCODERS: dict[str, tuple[ClipTarget, dict[str, dict[str, Any]]]] = {
    "lumina2": (ClipTarget(z_image.ZImageTokenizer, z_image.te()), {"qwen3_4b": _LLAMA}),
    "qwen_image": (
        ClipTarget(qwen_image.QwenImageTokenizer, qwen_image.te()),
        {"qwen25_7b": _LLAMA},
    ),
    "flux": (
        ClipTarget(flux.FluxTokenizer, flux.flux_clip()),
        {"clip_l": _CLIP_L, "t5xxl": _T5},
    ),
}
"""ComfyUI's classes of a family's text encoder and the small sizes of its networks, by the type
that is chosen in Load CLIP: Z-Image's is `lumina2`."""


@torch.no_grad()
def tiny_text_encoder(kind: str) -> comfy.sd.CLIP:
    """Build a CLIP of one of `TEXT_ENCODERS` with random weights."""
    target, configs = TEXT_ENCODERS[kind]
    sizes = {f"{name}_model_config": dict(config) for name, config in configs.items()}
    clip = comfy.sd.CLIP(target, model_options=sizes)
    generator = torch.Generator().manual_seed(0)
    for name in configs:
        draw_language_weights(getattr(clip.cond_stage_model, name).transformer, generator)
    return clip


def draw_language_weights(network: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of everything that reads words; what sees images stays as it is."""
    for name, parameter in network.named_parameters():
        if name.startswith("visual."):
            continue
        if parameter.ndim == 1:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
        else:
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(drawn * parameter.shape[-1] ** -0.5)


class SandboxTextEncoder:
    """Replaces Load CLIP and DualCLIPLoader, which build encoders of full size only."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {"required": {"type": (list(TEXT_ENCODERS), {})}}

    RETURN_TYPES = ("CLIP",)
    FUNCTION = "load"
    CATEGORY = "sandbox"

    def load(self, type: str) -> tuple[comfy.sd.CLIP]:
        return (tiny_text_encoder(type),)
