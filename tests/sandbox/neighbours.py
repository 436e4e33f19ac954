"""Stock nodes that change a MODEL, each with settings at which it acts on the tiny SDXL.

Call `paths.use_comfyui()` before importing this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import comfy.sample
import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher
from comfy_extras import (
    nodes_apg,
    nodes_attention_multiply,
    nodes_cfg,
    nodes_easycache,
    nodes_eps,
    nodes_freelunch,
    nodes_fresca,
    nodes_hypertile,
    nodes_mahiro,
    nodes_model_advanced,
    nodes_model_downscale,
    nodes_model_merging,
    nodes_nag,
    nodes_pag,
    nodes_sag,
    nodes_tcfg,
)
from torch import Tensor

from . import tiny

Node = Callable[[ModelPatcher], ModelPatcher]
Merge = Callable[[ModelPatcher, ModelPatcher], ModelPatcher]


def _v3(node: Any, **inputs: Any) -> Node:
    """Make a function of MODEL from a node with the settings of its inputs."""

    def put_on(model: ModelPatcher) -> ModelPatcher:
        return node.execute(model, **inputs)[0]

    return put_on


@cache
def _lora() -> tiny.StateDict:
    return tiny.make_lora(tiny.tiny_sdxl(), tiny.tiny_clip(), seed=7)


def another_lora(model: ModelPatcher) -> ModelPatcher:
    """Put a LoRA on a MODEL by ComfyUI's own loader."""
    return comfy.sd.load_lora_for_models(model, None, _lora(), 0.6, 0.0)[0]


def _sampling(model: ModelPatcher) -> ModelPatcher:
    return nodes_model_advanced.ModelSamplingDiscrete().patch(model, "v_prediction", False)[0]


def _rescale(model: ModelPatcher) -> ModelPatcher:
    return nodes_model_advanced.RescaleCFG().patch(model, 0.7)[0]


NEIGHBOURS: Mapping[str, Node] = {
    "Load LoRA": another_lora,
    "FreeU": _v3(nodes_freelunch.FreeU, b1=1.1, b2=1.2, s1=0.9, s2=0.2),
    "FreeU_V2": _v3(nodes_freelunch.FreeU_V2, b1=1.3, b2=1.4, s1=0.9, s2=0.2),
    "PerturbedAttentionGuidance": _v3(nodes_pag.PerturbedAttentionGuidance, scale=3.0),
    "SelfAttentionGuidance": _v3(nodes_sag.SelfAttentionGuidance, scale=0.5, blur_sigma=2.0),
    "RescaleCFG": _rescale,
    "HyperTile": _v3(
        nodes_hypertile.HyperTile, tile_size=32, swap_size=1, max_depth=2, scale_depth=False
    ),
    "PatchModelAddDownscale": _v3(
        nodes_model_downscale.PatchModelAddDownscale,
        block_number=3, downscale_factor=2.0, start_percent=0.0, end_percent=0.6,
        downscale_after_skip=True, downscale_method="bicubic", upscale_method="bicubic",
    ),
    "UNetSelfAttentionMultiply": _v3(
        nodes_attention_multiply.UNetSelfAttentionMultiply, q=1.2, k=0.9, v=1.1, out=0.8
    ),
    "UNetCrossAttentionMultiply": _v3(
        nodes_attention_multiply.UNetCrossAttentionMultiply, q=1.2, k=0.9, v=1.1, out=0.8
    ),
    "ModelSamplingDiscrete": _sampling,
    "NAGuidance": _v3(nodes_nag.NAGuidance, nag_scale=3.0, nag_alpha=0.5, nag_tau=1.5),
    "APG": _v3(nodes_apg.APG, eta=0.5, norm_threshold=5.0, momentum=0.1),
    "FreSca": _v3(nodes_fresca.FreSca, scale_low=1.0, scale_high=1.5, freq_cutoff=2),
    "TCFG": _v3(nodes_tcfg.TCFG),
    "Mahiro": _v3(nodes_mahiro.Mahiro),
    "CFGZeroStar": _v3(nodes_cfg.CFGZeroStar),
    "CFGNorm": _v3(nodes_cfg.CFGNorm, strength=0.8),
    "Epsilon Scaling": _v3(nodes_eps.EpsilonScaling, scaling_factor=1.05),
    "EasyCache": _v3(
        nodes_easycache.EasyCacheNode,
        reuse_threshold=1.0, start_percent=0.1, end_percent=0.95, verbose=False,
    ),
    "LazyCache": _v3(
        nodes_easycache.LazyCacheNode,
        reuse_threshold=1.0, start_percent=0.1, end_percent=0.95, verbose=False,
    ),
}  # fmt: skip
"""The nodes of ComfyUI between a MODEL and a sampler that act on SDXL, beside merges."""


def _difference(first: ModelPatcher, second: ModelPatcher) -> ModelPatcher:
    """Put on the first MODEL what the second one has more than the tiny SDXL."""
    more = nodes_model_merging.ModelSubtract().merge(second, tiny.tiny_sdxl(), 0.7)[0]
    return nodes_model_merging.ModelAdd().merge(first, more)[0]


MERGES: Mapping[str, Merge] = {
    "ModelMergeSimple": lambda a, b: nodes_model_merging.ModelMergeSimple().merge(a, b, 0.3)[0],
    "ModelMergeBlocks": lambda a, b: nodes_model_merging.ModelMergeBlocks().merge(
        a, b, input=0.2, middle=0.9, out=0.6
    )[0],
    "ModelMergeAdd and ModelMergeSubtract": _difference,
}
"""ComfyUI's merges of two MODELs."""


@torch.inference_mode()
def drawn(
    model: ModelPatcher, positive: Any, negative: Any, side: int = 16, steps: int = 2
) -> Tensor:
    """Draw as KSampler does, at CFG 5."""
    noise = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(0))
    return comfy.sample.sample(
        model, noise, steps, 5.0, "euler", "normal", positive, negative, torch.zeros_like(noise),
        disable_pbar=True, seed=0,
    )  # fmt: skip
