"""The diffusers SDXL DreamBooth-LoRA training step on the tiny SDXL, a reference for our trainer.

It follows diffusers' `examples/dreambooth/train_dreambooth_lora_sdxl.py` with diffusers' own UNet
and scheduler and PEFT's own LoRA layers. No code of ComfyUI's or ours takes part in a step.
Call `paths.use_comfyui()` before importing this.
"""

from __future__ import annotations

from collections.abc import Mapping

import comfy.utils
import torch
import torch.nn.functional as F
from comfy.model_patcher import ModelPatcher
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.training_utils import compute_snr
from peft import LoraConfig
from torch import Tensor

from ziplora_core.lora.factors import UNET_PREFIX, LoraFactors

from .tiny_pack.models import UNET_CONFIG

TARGET_MODULES = ["to_k", "to_q", "to_v", "to_out.0"]
"""The layers that the script trains: every attention linear."""

SGM_NAMES = comfy.utils.unet_to_diffusers(UNET_CONFIG)
"""Maps diffusers' name of every weight of the tiny SDXL to ComfyUI's."""

Pair = tuple[Tensor, Tensor]


def diffusers_unet(model: ModelPatcher) -> UNet2DConditionModel:
    """Build diffusers' UNet with the weights of a tiny SDXL, float32."""
    channels = [UNET_CONFIG["model_channels"] * factor for factor in UNET_CONFIG["channel_mult"]]
    unet = UNet2DConditionModel(
        block_out_channels=channels,
        down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        attention_head_dim=[max(1, width // 64) for width in channels],  # the number of heads
        cross_attention_dim=UNET_CONFIG["context_dim"],
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=UNET_CONFIG["adm_in_channels"],
    )
    weights = model.model.diffusion_model.state_dict()
    unet.load_state_dict({name: weights[SGM_NAMES[name]].float() for name in unet.state_dict()})
    return unet


def noise_scheduler(v_prediction: bool = False) -> DDPMScheduler:
    """Build SDXL's scheduler."""
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction" if v_prediction else "epsilon",
    )


def add_lora(unet: UNet2DConditionModel, rank: int, alpha: float) -> dict[str, Pair]:
    """Freeze the UNet and put PEFT's LoRA layers on it, as the script does.

    Returns:
        The trainable parameters down `(rank, in)` and up `(out, rank)`, by kohya module name with
        sgm spelling.
    """
    unet.requires_grad_(False)
    unet.add_adapter(
        LoraConfig(
            r=rank,
            lora_alpha=alpha,
            init_lora_weights="gaussian",
            target_modules=TARGET_MODULES,
        )
    )
    return {
        _kohya_name(name): (layer.lora_A["default"].weight, layer.lora_B["default"].weight)
        for name, layer in unet.named_modules()
        if hasattr(layer, "lora_A")
    }


def training_loss(
    unet: UNet2DConditionModel,
    scheduler: DDPMScheduler,
    latents: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    context: Tensor,
    pooled: Tensor,
    time_ids: Tensor,
    prior_weight: float | None = None,
    min_snr_gamma: float = 0.0,
) -> Tensor:
    """Compute the script's loss of one batch.

    With `prior_weight`, the second half of the batch holds the class images. As in the script, only
    the instance half is weighted by min-SNR. Two mistakes of the script are not reproduced:

    - With class images, it also weights the instance loss by their timesteps
      (`train_dreambooth.py` does not).
    - With v-prediction, its weight is min(SNR, γ)/SNR + 1 (`train_text_to_image_lora_sdxl.py` has
      the min(SNR, γ)/(SNR + 1) of Hang et al. 2023, arXiv:2303.09556).

    Args:
        latents: `(b, 4, h, w)`, already scaled for the UNet.
        timesteps: `(b,)`, integers from 0 to 999.
        context: `(b, tokens, width)`, the prompts.
        pooled: `(b, width)`, the pooled prompts.
        time_ids: `(b, 6)`, original height and width, crop top and left, target height and width.
    """
    noisy = scheduler.add_noise(latents, noise, timesteps)
    prediction = unet(
        noisy,
        timesteps,
        context,
        added_cond_kwargs={"text_embeds": pooled, "time_ids": time_ids},
    ).sample
    v_prediction = scheduler.config["prediction_type"] == "v_prediction"
    target = scheduler.get_velocity(latents, noise, timesteps) if v_prediction else noise

    prior_loss = torch.zeros(())
    if prior_weight is not None:
        prediction, class_prediction = prediction.chunk(2)
        target, class_target = target.chunk(2)
        timesteps, _ = timesteps.chunk(2)
        prior_loss = prior_weight * F.mse_loss(class_prediction.float(), class_target.float())

    if not min_snr_gamma:
        return F.mse_loss(prediction.float(), target.float()) + prior_loss
    snr = compute_snr(scheduler, timesteps)
    weights = snr.clamp(max=min_snr_gamma) / (snr + 1 if v_prediction else snr)
    losses = F.mse_loss(prediction.float(), target.float(), reduction="none")
    return (losses.mean(dim=(1, 2, 3)) * weights).mean() + prior_loss


def reference_step(
    unet: UNet2DConditionModel,
    factors: Mapping[str, LoraFactors],
    latents: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    context: Tensor,
    pooled: Tensor,
    time_ids: Tensor,
    *,
    v_prediction: bool = False,
    prior_weight: float | None = None,
    min_snr_gamma: float = 0.0,
) -> tuple[Tensor, dict[str, Pair]]:
    """Compute loss and gradients of one step from given factors; the UNet is not changed.

    Args:
        factors: of all attention linears, by kohya module name with sgm spelling; all have the same
            rank and alpha.
        latents, noise, timesteps, context, pooled, time_ids: as for `training_loss`.

    Returns:
        The loss, and the gradients of down and up by module name.
    """
    first = next(iter(factors.values()))
    layers = add_lora(unet, first.rank, first.scale * first.rank)
    try:
        assert layers.keys() == factors.keys(), "the reference trains all attention linears"
        with torch.no_grad():
            for name, (down, up) in layers.items():
                assert factors[name].scale == first.scale
                down.copy_(factors[name].down)
                up.copy_(factors[name].up)
        scheduler = noise_scheduler(v_prediction)
        loss = training_loss(
            unet, scheduler, latents, noise, timesteps, context, pooled, time_ids,
            prior_weight, min_snr_gamma,
        )  # fmt: skip
        parameters = [parameter for pair in layers.values() for parameter in pair]
        found = iter(torch.autograd.grad(loss, parameters))
        gradients = {name: (next(found), next(found)) for name in layers}
        return loss.detach(), {name: gradients[name] for name in factors}
    finally:
        unet.unload_lora()


def _kohya_name(module: str) -> str:
    sgm = SGM_NAMES[f"{module}.weight"].removesuffix(".weight")
    return UNET_PREFIX + sgm.replace(".", "_")
