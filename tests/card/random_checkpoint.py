"""A checkpoint file of SDXL with random bf16 weights, written without holding them in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import BinaryIO

import comfy.ldm.models.autoencoder
import comfy.sdxl_clip
import comfy.supported_models
import torch
from torch import Tensor

from bench.engine.models import Scale, unet_config

POOL = 2**24 + 43
"""Number of random numbers from which all weights are taken; a prime's distance from a power of 2,
so that equal shapes get other numbers."""
DECODER = {
    "double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3,
    "ch": 128, "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0,
}  # fmt: skip
META = torch.device("meta")


def write_checkpoint(path: Path, scale: Scale) -> Path:
    """Write SDXL's UNet, text encoders and VAE under the names of its checkpoints.

    Weights have the variance 1 / inputs, so that activations keep their size; norms are 1 and
    biases 0.
    """
    tensors = shapes(scale)
    entries: dict[str, object] = {}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + 2 * tensor.numel()
        entries[name] = {
            "dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [begin, end],
        }  # fmt: skip
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    pool = torch.randn(POOL, generator=torch.Generator().manual_seed(0))
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        place = 0
        for name, tensor in tensors.items():
            place = _write(file, name, tensor, pool, place)
    return path


def shapes(scale: Scale) -> dict[str, Tensor]:
    """Return all tensors of the checkpoint without their contents."""
    config = comfy.supported_models.SDXL(unet_config(scale))
    config.set_inference_dtype(torch.bfloat16, None)
    unet = config.get_model({}, device=META).diffusion_model.state_dict()
    clip = comfy.sdxl_clip.SDXLClipModel(device=META, dtype=torch.bfloat16).state_dict()
    with META:
        vae = comfy.ldm.models.autoencoder.AutoencoderKL(ddconfig=DECODER, embed_dim=4)
    saved = config.process_clip_state_dict_for_saving(clip)
    return {
        **{f"model.diffusion_model.{name}": tensor for name, tensor in unet.items()},
        **{name: tensor for name, tensor in saved.items() if tensor.ndim or "logit" in name},
        **{f"first_stage_model.{name}": tensor for name, tensor in vae.state_dict().items()},
    }


def _write(file: BinaryIO, name: str, tensor: Tensor, pool: Tensor, place: int) -> int:
    """Write one tensor; return where in the pool the next one begins."""
    count = tensor.numel()
    if tensor.ndim < 2:
        values = torch.full((count,), 0.0 if name.endswith("bias") else 1.0)
        file.write(_bytes(values))
        return place
    spread = tensor[0].numel() ** -0.5
    while count:
        piece = pool[place : place + count]
        file.write(_bytes(piece * spread))
        count -= len(piece)
        place = (place + len(piece)) % len(pool)
    return place


def _bytes(values: Tensor) -> memoryview:
    return memoryview(values.bfloat16().view(torch.uint8).numpy())
