"""The public UnZipLoRA training on the tiny SDXL, a reference for our training step.

It follows `train_unziplora.py` and `unziplora_linear_layer.py` of github.com/changLiu77/UnZipLoRA
(0dc1800) exactly, including dense updates, absolute threshold and lost ties, on diffusers' own UNet
and scheduler. Call `paths.use_comfyui()` before importing this.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor

from ziplora_core.lora.factors import UNET_PREFIX, LoraFactors

from .diffusers_reference import SGM_NAMES, noise_scheduler

THRESHOLD = 1e-5


@dataclass
class UnZipLoRALinear:
    """The two updates of one layer; `down`, `up` and `merge` are leaf tensors.

    Args:
        down, up, merge: content's and style's `(rank, in)`, `(out, rank)`, `(out,)`.
        mask: content's and style's feature mask, bool `(out,)`.
        masked: whether the masks are applied.
    """

    down: Sequence[Tensor]
    up: Sequence[Tensor]
    merge: Sequence[Tensor]
    mask: Sequence[Tensor]
    masked: bool = True

    def gate(self, k: int) -> Tensor:
        return self.merge[k] * (self.mask[k] if self.masked else 1)

    def forward(self, *hidden: Tensor) -> Tensor:
        """Compute (h_c A_cᵀ B_cᵀ) g_c + (h_s A_sᵀ B_sᵀ) g_s, with dense products of the factors."""
        parts = [h @ (self.down[k].T @ self.up[k].T) * self.gate(k) for k, h in enumerate(hidden)]
        return parts[0] + parts[1]

    def orthogonality(self) -> Tensor:
        return (self.gate(0) * self.gate(1)).abs().mean()

    def cone(self, k: int) -> Tensor:
        """Score the features by the current gradients: the share of entries above 1e-5."""
        down, up = self.down[k], self.up[k]
        assert down.grad is not None and up.grad is not None
        update = down.T @ up.T  # (in, out)
        change = (down.grad.T @ up.T + down.T @ up.grad.T) * self.merge[k]
        return ((update * change).abs() > THRESHOLD).float().mean(0)

    def extend_masks(self, ratio: float, owner: int | None) -> None:
        """Add the features with scores strictly above the n-th largest; style avoids content's."""
        scores = [self.cone(k) for k in range(2)]
        masks = [mask.clone() for mask in self.mask]
        for k in range(2):
            if k == owner:
                masks[k][:] = True
                continue
            score = scores[k]
            if owner is None and k == 1:
                score = score.masked_fill(masks[0], -math.inf)
            kth = score.topk(int(len(score) * ratio)).values[-1]
            masks[k] |= score > kth
        self.mask = masks


def events(steps: int, sample_times: int, batches: int = 1) -> list[tuple[int, str]]:
    """List the mask events after backward passes, by step counted from 0."""
    period = math.ceil(steps / sample_times)
    found = []
    for g in range(steps):
        if g >= sample_times * period:
            continue
        if g % period == 0:
            found.append((g, "open"))
        elif (g - batches) % period == 0:
            found.append((g, "recalibrate"))
    return found


def unziplora_linears(
    halves: Sequence[Mapping[str, LoraFactors]],
    mergers: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
) -> dict[str, UnZipLoRALinear]:
    """Make the layers from our LoRAs; mergers and masks are `(2, out)` by module."""
    return {
        name: UnZipLoRALinear(
            [_leaf(half[name].down) for half in halves],
            [_leaf(half[name].up) for half in halves],
            [_leaf(m) for m in mergers[name]],
            list(masks[name]),
        )
        for name in mergers
    }


def unziplora_loss(
    unet: UNet2DConditionModel,
    linears: Mapping[str, UnZipLoRALinear],
    contexts: Sequence[Tensor],
    latents: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    pooled: Tensor,
    time_ids: Tensor,
    similarity_lambda: float,
) -> Tensor:
    """Compute the loss of one step of `main()` with masks: eps-MSE plus the orthogonality loss.

    Args:
        contexts: joint, content and style, `(b, token, width)` each.
        latents, noise, timesteps, pooled, time_ids: as for `diffusers_reference.training_loss`.
    """
    joint, content, style = contexts
    handles = []
    for path, layer in unet.named_modules():
        name = _kohya(path)
        if name in linears:
            reads_text = path.endswith(("attn2.to_k", "attn2.to_v"))

            def add(_m, inputs, out, linear=linears[name], reads_text=reads_text):
                h = inputs[0]
                return out + (linear.forward(content, style) if reads_text else
                              linear.forward(h, h))  # fmt: skip

            handles.append(layer.register_forward_hook(add))
    try:
        prediction = unet(
            noise_scheduler().add_noise(latents, noise, timesteps),
            timesteps,
            joint,
            added_cond_kwargs={"text_embeds": pooled, "time_ids": time_ids},
        ).sample
    finally:
        for handle in handles:
            handle.remove()
    assert len(handles) == len(linears)
    orthogonality = torch.stack([linear.orthogonality() for linear in linears.values()]).mean()
    return F.mse_loss(prediction, noise) + similarity_lambda * orthogonality


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_()


def _kohya(path: str) -> str:
    sgm = SGM_NAMES.get(f"{path}.weight", "").removesuffix(".weight")
    return UNET_PREFIX + sgm.replace(".", "_")
