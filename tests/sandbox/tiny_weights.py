"""The weights of the tiny models: random, except for a few that keep the models useful.

The UNet passes its input through to its prediction, like a denoiser of Gaussian noise, so that
sampling converges. The VAE averages 8 × 8 pixels, so that images keep their colours. Every weight
is exact in float16, so a model built in process equals the one loaded from a checkpoint.
"""

from __future__ import annotations

import torch
from comfy.taesd.taesd import TAESD
from torch import nn

RANDOM_PART = 0.6
"""Gain of the random part of the UNet's prediction."""
PROMPT_GAIN = 2.0
"""Gain of cross attention's queries and outputs; gives the prompt an eighth of eps."""
CONTRAST = 4.0
"""Latent units per unit of colour; gives photographs latents of about unit variance."""
LATENT_SCALE = 0.13025
"""ComfyUI's factor between a VAE's latents and SDXL's."""


@torch.no_grad()
def initialise(module: nn.Module, seed: int) -> None:
    """Draw every matrix with unit gain, because ComfyUI's layers are uninitialised."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        if parameter.ndim >= 2:
            draw = torch.randn(parameter.shape, generator=generator)
            parameter.copy_((draw * parameter[0].numel() ** -0.5).half())
        elif parameter.ndim == 1:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)


@torch.no_grad()
def initialise_unet(unet: nn.Module, pass_through: float, seed: int) -> None:
    """Draw the weights, and pass the input through the outermost skip connection to the output.

    SiLU(u) − SiLU(−u) = u, so each latent channel travels as a pair of opposite channels.
    """
    initialise(unet, seed)
    for name, parameter in unet.named_parameters():
        if ".attn2.to_out.0.weight" in name or ".attn2.to_q.weight" in name:
            parameter.mul_(PROMPT_GAIN)
    first = unet.input_blocks[0][0].weight  # (32, 4, 3, 3)
    last = unet.output_blocks[-1][0]
    skip, branch = last.skip_connection.weight, last.out_layers[3].weight
    out = unet.out[2].weight  # (4, 32, 3, 3)

    out.mul_(RANDOM_PART)
    out[:, :8] = 0
    skip[:8] = 0
    branch[:8] = 0
    first[:4] = 0
    for channel in range(4):
        first[channel, channel, 1, 1] = 1
        for sign, row in ((1, 2 * channel), (-1, 2 * channel + 1)):
            skip[row, unet.model_channels + channel] = sign
            out[channel, row, 1, 1] = sign * pass_through
    for parameter in unet.parameters():
        parameter.copy_(parameter.half())


@torch.no_grad()
def averaging_vae() -> TAESD:
    """Build a TAESD whose latents are the colour differences and the brightness of 8 × 8 pixels.

    Colours in [0, 1] pass the ReLUs unchanged; the residual branches are zero.
    """
    vae = TAESD(latent_channels=4)
    for parameter in vae.parameters():
        parameter.zero_()
    vae.vae_scale.fill_(LATENT_SCALE)
    encoder = [layer for layer in vae.taesd_encoder if isinstance(layer, nn.Conv2d)]
    decoder = [layer for layer in vae.taesd_decoder if isinstance(layer, nn.Conv2d)]
    colours = range(3)

    for layer in (encoder[0], *decoder[1:]):
        for c in colours:
            layer.weight[c, c, 1, 1] = 1
    for layer in encoder[1:-1]:  # stride 2
        for c in colours:
            layer.weight[c, c, 1:, 1:] = 1 / 4
    mean = torch.full((3,), 1 / 3)
    encoder[-1].weight[:3, :3, 1, 1] = CONTRAST * (torch.eye(3) - mean)
    encoder[-1].weight[3, :3, 1, 1] = CONTRAST * mean
    encoder[-1].bias[3] = -CONTRAST / 2
    decoder[0].weight[:3, :3, 1, 1] = torch.eye(3) / CONTRAST
    decoder[0].weight[:3, 3, 1, 1] = 1 / CONTRAST
    decoder[0].bias[:3] = 1 / 2
    return vae
