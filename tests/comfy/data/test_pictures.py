"""Encoding of pictures: mean and deviation of a real AutoencoderKL, mirror images."""

from __future__ import annotations

import comfy.ldm.models.autoencoder
import comfy.sd
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from diffusers import AutoencoderKL
from torch import Tensor

from sandbox import tiny
from ziplora_core.comfy_adapter.data.pictures import encode_pictures
from ziplora_core.errors import ZipLoRAError

from .. import helpers

CONFIG = {
    "double_z": True, "z_channels": 4, "resolution": 64, "in_channels": 3, "out_ch": 3, "ch": 32,
    "ch_mult": [1, 2, 2, 2], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0,
}  # fmt: skip


def kl_vae() -> comfy.sd.VAE:
    """Return a narrow AutoencoderKL of ComfyUI's own classes with random weights."""
    config = {"params": {"ddconfig": CONFIG, "embed_dim": 4}}
    model = comfy.ldm.models.autoencoder.AutoencoderKL(**config["params"])
    generator = torch.Generator().manual_seed(1)
    weights = {
        name: torch.randn(w.shape, generator=generator) * (0.5 / max(1, w[0].numel())) ** 0.5
        for name, w in model.state_dict().items()
    }
    for name in weights:
        if "norm" in name and name.endswith("weight"):
            weights[name] = torch.ones_like(weights[name])
    return comfy.sd.VAE(sd=weights, config=config, dtype=torch.float32)


def diffusers_moments(vae: comfy.sd.VAE, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distribution of diffusers' AutoencoderKL with the same weights."""
    reference = AutoencoderKL(
        block_out_channels=[32, 64, 64, 64], layers_per_block=1, latent_channels=4,
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
    )  # fmt: skip
    ours = {k: v for k, v in vae.first_stage_model.state_dict().items() if "decoder" not in k}
    theirs = {k: v for k, v in reference.state_dict().items() if "decoder" not in k}
    renamed = {_diffusers_name(name): weight for name, weight in ours.items()}
    renamed = {name: w for name, w in renamed.items() if name in theirs}
    squeezed = {name: w.view(theirs[name].shape) for name, w in renamed.items()}
    missing = theirs.keys() - squeezed.keys()
    assert all(name.startswith("post_quant_conv") for name in missing), missing
    reference.load_state_dict(squeezed, strict=False)
    with torch.no_grad():
        found = reference.encode(2 * pixels.movedim(-1, 0)[None] - 1).latent_dist
    return found.mean[0], found.std[0]


def _diffusers_name(name: str) -> str:
    parts = name.split(".")
    if parts[:2] == ["encoder", "down"]:
        where = {"block": "resnets", "downsample": "downsamplers.0"}[parts[3]]
        parts = ["encoder", "down_blocks", parts[2], where, *parts[4:]]
    elif parts[:3] == ["encoder", "mid", "attn_1"]:
        renamed = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v",
                   "proj_out": "to_out.0"}  # fmt: skip
        parts = ["encoder.mid_block.attentions.0", renamed[parts[3]], *parts[4:]]
    elif parts[:2] == ["encoder", "mid"]:
        number = {"block_1": "0", "block_2": "1"}[parts[2]]
        parts = ["encoder.mid_block.resnets", number, *parts[3:]]
    joined = ".".join(parts).replace("nin_shortcut", "conv_shortcut")
    return joined.replace("encoder.norm_out", "encoder.conv_norm_out")


def test_pictures_have_the_mean_and_deviation_of_diffusers_vae(model: ModelPatcher) -> None:
    vae, picture = kl_vae(), helpers.noise(64, 96, 3).sigmoid()
    (example,) = encode_pictures(vae, model.model, [picture], ["sks"], 64, True)
    scale = model.model.latent_format.scale_factor
    assert len(example.views) == 2
    height, width = example.views[0].frame.target
    assert (height, width) == (48, 80) or (height, width) == (56, 72)
    from ziplora_core.training.framing import framing, reframe

    pixels = reframe(picture, framing(64, 96, 64))
    for view, shown in zip(example.views, (pixels, pixels.flip(1)), strict=True):
        mean, std = diffusers_moments(vae, shown)
        assert helpers.relative(view.mean, scale * mean) < 1e-3
        assert helpers.relative(view.std, scale * std) < 1e-3
        assert float(view.std.min()) > 0
    assert not any(m._forward_pre_hooks for m in vae.first_stage_model.modules())


def test_pictures_of_a_vae_without_a_distribution_have_deviation_zero(model: ModelPatcher) -> None:
    picture = helpers.noise(64, 64, 3).sigmoid()
    (example,) = encode_pictures(tiny.tiny_vae(), model.model, [picture], ["sks"], 64, False)
    (view,) = example.views
    assert not view.std.any()
    stock = model.model.process_latent_in(tiny.tiny_vae().encode(picture[None]))
    torch.testing.assert_close(view.mean, stock[0])


def test_pictures_through_another_models_vae_are_refused(model: ModelPatcher) -> None:
    class SixteenChannels:
        first_stage_model = torch.nn.Identity()

        def encode(self, pixels: Tensor) -> Tensor:
            return torch.zeros(1, 16, pixels.shape[1] // 8, pixels.shape[2] // 8)

    with pytest.raises(ZipLoRAError, match=r"vae: found latents of shape \(1, 16, 8, 8\)"):
        encode_pictures(SixteenChannels(), model.model, [torch.zeros(64, 64, 3)], ["a"], 64, False)
