"""Tiny versions of the model families beside SDXL's, made of ComfyUI's own model classes.

Each has the layers and the key names of the family; only widths and depths are small. Call
`paths.use_comfyui()` before importing this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import comfy.ldm.anima.model
import comfy.model_management
import comfy.ops
import comfy.sd
import comfy.supported_models as supported
import torch
from comfy.ldm.wan.vae import WanVAE
from comfy.model_patcher import ModelPatcher
from comfy.supported_models_base import BASE
from comfy.taesd.taesd import TAESD
from torch import Tensor, nn

from .tiny_pack.families import POOLED, QWEN_IMAGE, WIDTH, Z_IMAGE
from .tiny_weights import initialise

TOKENS = 7
"""The number of tokens of a prompt."""


@dataclass(frozen=True)
class Family:
    """ComfyUI's configuration of a family, and what its tiny model and its prompts look like.

    Args:
        config: class of the configuration, in `comfy.supported_models`.
        unet: the small sizes, as ComfyUI's detection would name them.
        context: width of a prompt's tokens.
        extras: entries of a CONDITIONING beside the tokens, made from a generator.
    """

    config: str
    unet: dict[str, Any]
    context: int = WIDTH
    extras: dict[str, tuple[int, ...] | float] = field(default_factory=dict)


_FLUX = {
    "image_model": "flux", "in_channels": 16, "out_channels": 16, "context_in_dim": WIDTH,
    "hidden_size": 64, "mlp_ratio": 4.0, "num_heads": 2, "depth": 2, "depth_single_blocks": 2,
    "axes_dim": [8, 12, 12], "theta": 10_000, "patch_size": 2, "qkv_bias": True,
    "txt_ids_dims": [],
}  # fmt: skip
_ALL = {
    "SD1.5": Family(
        "SD15",
        {
            "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32,
            "num_res_blocks": [1, 1], "channel_mult": [1, 2], "transformer_depth": [1, 1],
            "transformer_depth_output": [1, 1, 1, 1], "transformer_depth_middle": 1,
            "context_dim": WIDTH, "use_linear_in_transformer": False, "adm_in_channels": None,
            "use_spatial_transformer": True, "legacy": False, "num_heads": 2,
            "use_temporal_attention": False, "use_temporal_resblock": False,
        },
        extras={"pooled_output": (1, POOLED)},
    ),
    "FLUX.1": Family(
        "Flux",
        {**_FLUX, "guidance_embed": True, "vec_in_dim": POOLED},
        extras={"pooled_output": (1, POOLED), "guidance": 3.5},
    ),
    "Chroma": Family(
        "Chroma",
        {
            **_FLUX, "image_model": "chroma", "in_channels": 64, "out_channels": 64, "in_dim": 64,
            "out_dim": 64, "hidden_dim": 32, "n_layers": 2, "vec_in_dim": None,
        },
    ),
    "Z-Image": Family(
        "ZImage",
        Z_IMAGE,
    ),
    "Qwen-Image": Family(
        "QwenImage",
        QWEN_IMAGE,
    ),
    "Krea 2": Family(
        "Krea2",
        {
            "image_model": "krea2", "features": 64, "tdim": 32, "txtdim": 16, "heads": 4,
            "kvheads": 2, "multiplier": 2, "layers": 3, "patch": 2, "channels": 16,
            "txtlayers": 4, "txtheads": 2, "txtkvheads": 2,
        },
        context=4 * 16,
    ),
    "Anima": Family(
        "Anima",
        {
            "image_model": "anima", "max_img_h": 64, "max_img_w": 64, "max_frames": 8,
            "in_channels": 16, "out_channels": 16, "patch_spatial": 2, "patch_temporal": 1,
            "model_channels": 64, "num_blocks": 3, "num_heads": 2, "concat_padding_mask": True,
            "crossattn_emb_channels": WIDTH, "pos_emb_cls": "rope3d", "pos_emb_learnable": True,
            "use_adaln_lora": True, "adaln_lora_dim": 16, "rope_h_extrapolation_ratio": 4.0,
            "rope_w_extrapolation_ratio": 4.0, "rope_enable_fps_modulation": False,
        },
        extras={"t5xxl_ids": (TOKENS,), "t5xxl_weights": (TOKENS,)},
    ),
    "Wan 2.1": Family(
        "WAN21_T2V",
        {
            "image_model": "wan2.1", "model_type": "t2v", "dim": 64, "out_dim": 16, "num_heads": 2,
            "ffn_dim": 128, "num_layers": 3, "patch_size": (1, 2, 2), "freq_dim": 32,
            "window_size": (-1, -1), "qk_norm": True, "cross_attn_norm": True, "eps": 1e-6,
            "in_dim": 64, "text_dim": WIDTH, "text_len": 32,
        },
    ),
}  # fmt: skip
FAMILIES = {name: f for name, f in _ALL.items() if hasattr(supported, f.config)}
"""By name, those that this ComfyUI knows."""


def tiny_family(name: str, seed: int = 0, sizes: Mapping[str, Any] | None = None) -> ModelPatcher:
    """Build one of `FAMILIES` in this process, with the reload factory of a loader.

    Args:
        name: the family.
        seed: of the weights.
        sizes: other sizes than the family's tiny ones.
    """
    family = FAMILIES[name]
    config = config_class(name)({**family.unet, **(sizes or {})})
    for key, value in config.unet_extra_config.items():
        config.unet_config[key] = family.unet.get(key, value)
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, device=torch.device("cpu"))
    if name == "Anima":  # the class gives its adapter the full size, 130 million numbers
        model.diffusion_model.llm_adapter = comfy.ldm.anima.model.LLMAdapter(
            WIDTH, WIDTH, WIDTH, 1, 2, operations=comfy.ops.disable_weight_init
        )
    initialise(model.diffusion_model, seed)
    patcher = ModelPatcher(
        model,
        load_device=comfy.model_management.get_torch_device(),
        offload_device=torch.device("cpu"),
    )
    patcher.cached_patcher_init = (lambda disable_dynamic=False: tiny_family(name, seed, sizes), ())
    return patcher


def config_class(name: str) -> type[BASE]:
    """Return ComfyUI's configuration class of a family."""
    return getattr(supported, FAMILIES[name].config)


def tiny_vae(name: str) -> comfy.sd.VAE:
    """Build the VAE of a family's kind of latents, of random weights."""
    return comfy.sd.VAE(sd=vae_weights(name))


def vae_weights(name: str) -> dict[str, Tensor]:
    """Draw the weights of a family's tiny VAE, as its file has them."""
    latent = config_class(name).latent_format()
    if latent.latent_dimensions == 2:
        network: nn.Module = TAESD(latent_channels=latent.latent_channels)
    else:
        network = WanVAE(
            dim=8, z_dim=latent.latent_channels, temperal_downsample=[False, True, True]
        )
    initialise(network, seed=0)
    return network.state_dict()


def conditioning(name: str, seed: int = 0) -> list[list[Any]]:
    """Make the CONDITIONING that a family's CLIP Text Encode would give, of random numbers."""
    family, generator = FAMILIES[name], torch.Generator().manual_seed(seed)

    def made(key: str, value: tuple[int, ...] | float) -> Any:
        if key == "t5xxl_ids":
            assert isinstance(value, tuple)
            return torch.randint(1, 100, value, generator=generator, dtype=torch.int32)
        if key == "t5xxl_weights":
            assert isinstance(value, tuple)
            return torch.ones(value)
        return torch.randn(value, generator=generator) if isinstance(value, tuple) else value

    context = torch.randn(1, TOKENS, family.context, generator=generator)
    extras = {key: made(key, value) for key, value in family.extras.items()}
    return [[context, {"pooled_output": None, **extras}]]  # None: of encoders that have none


def latent_of(model: ModelPatcher, seed: int = 0, side: int = 8) -> Tensor:
    """Draw a latent `(1, c, …, side, side)` of the shape that a model takes."""
    latent = model.model.latent_format
    frames = (1,) * (latent.latent_dimensions - 2)
    shape = (1, latent.latent_channels, *frames, side, side)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
