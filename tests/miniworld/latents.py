"""The world's latent space: an exact linear encoder, written into a TAESD that ComfyUI loads.

The encoder needs no training, so the model can be trained at once on latents known to be right; the
decoder is trained to draw the 128 × 128 picture that belongs to them (`train_decoder`).
"""

from __future__ import annotations

import torch
from comfy.taesd.taesd import TAESD
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from sandbox.tiny_pack.mini import CONTRAST, DETAIL_CONTRAST, LATENT_CHANNELS

HAAR = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 4
"""Mean, left − right, top − bottom and the diagonal of four quarters in reading order."""


def quarter(pictures: Tensor) -> Tensor:
    """Average 4 × 4 pixels: `(b, 3, h, w)` to `(b, 3, h / 4, w / 4)`, all that a latent holds."""
    return avg_pool2d(pictures, 4)


def latents_of(quarters: Tensor) -> Tensor:
    """Encode averaged pictures `(b, 3, 2 h, 2 w)` in [0, 1] as latents `(b, 12, h, w)`."""
    b, c, h, w = quarters.shape
    parts = quarters.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4)
    parts = torch.einsum("fq,bqchw->bfchw", HAAR, parts.reshape(b, 4, c, h // 2, w // 2))
    parts[:, 0] = CONTRAST * (parts[:, 0] - 0.5)
    parts[:, 1:] *= DETAIL_CONTRAST
    return parts.reshape(b, LATENT_CHANNELS, h // 2, w // 2)


@torch.no_grad()
def new_vae(seed: int = 0) -> TAESD:
    """Build a TAESD whose encoder is `latents_of(quarter(…))`.

    Its decoder is untrained: small random weights beside the way of the mean colours through.
    """
    vae = TAESD(latent_channels=LATENT_CHANNELS)
    generator = torch.Generator().manual_seed(seed)
    for parameter in vae.parameters():
        parameter.zero_()
    for name, parameter in vae.taesd_decoder.named_parameters():
        if parameter.ndim > 1:
            gain = (2 / parameter[0].numel()) ** 0.5 * (0.1 if ".conv.4." in name else 1.0)
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * gain)
    vae.vae_scale.fill_(1.0)
    _write_encoder(vae)
    _start_decoder(vae)
    return vae


def _start_decoder(vae: TAESD) -> None:
    first, *_, last = convolutions = _convolutions(vae.taesd_decoder)
    for layer in convolutions:
        for c in range(3):
            layer.weight[c] = 0
            layer.weight[c, c, 1, 1] = 1 / CONTRAST if layer is first else 1
    first.bias[:3] = 0.5
    last.weight[:, 3:] *= 0.1


def _write_encoder(vae: TAESD) -> None:
    """Colours in [0, 1] pass the ReLUs unchanged; the residual branches are zero."""
    first, *strided, last = _convolutions(vae.taesd_encoder)
    quarters = [(0, 0), (0, 1), (1, 0), (1, 1)]
    for c in range(3):
        first.weight[c, c, 1, 1] = 1
        for layer in strided[:2]:
            layer.weight[c, c, 1:, 1:] = 1 / 4
        for q, (row, column) in enumerate(quarters):
            strided[2].weight[3 * q + c, c, 1 + row, 1 + column] = 1
            for f in range(4):
                scale = CONTRAST if f == 0 else DETAIL_CONTRAST
                last.weight[3 * f + c, 3 * q + c, 1, 1] = scale * HAAR[f, q]
        last.bias[c] = -CONTRAST / 2


def _convolutions(part: nn.Module) -> list[nn.Conv2d]:
    """List the convolutions of an encoder or decoder that are not inside its blocks."""
    return [module for module in part.children() if isinstance(module, nn.Conv2d)]
