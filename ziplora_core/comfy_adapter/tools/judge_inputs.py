"""The checks of pictures and of the LoRAs that judge them, before anything is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...errors import problem
from ...lora.factors import LoRA, LoraFactors
from ...lora.pair import LoRAPair, ModulePair, pair_modules
from ...plots.judge import alike, does_nothing
from ..apply.sweep import Sampling
from ..data.pictures import refuse_other_vae
from ..model import conditioning as cond
from ..model.bases import refuse_refiner
from ..model.private_copy import refuse_patched
from ..model.targets import resolve_some_unet


def checked_pair(model: Any, vae: Any, pair: LoRAPair, sampling: Sampling) -> dict[str, ModulePair]:
    """Check what judges; return the pair's UNet modules on the model, at strength 1.

    Args:
        model: the ModelPatcher.
        vae: the checkpoint's VAE.
        pair: the two LoRAs.
        sampling: the sampler's settings, of which the prompts are checked.

    Raises:
        ZipLoRAError: one of these cannot be used; the message names it.
    """
    refuse_patched(model)
    refuse_refiner(model.model)
    refuse_other_vae(vae, model.model)
    cond.check(sampling.positive or [], "positive", model.model)
    if not sampling.negative:
        raise problem(
            "negative",
            found="no prompt",
            expected="the encoded negative prompt, as for KSampler",
            advice="Connect CLIP Text Encode; its text may be empty.",
        )
    content, style = (resolve_some_unet(lora, model.model) for lora in (pair.content, pair.style))
    for lora, modules in ((pair.content, content), (pair.style, style)):
        _refuse_zero(lora, modules)
    if _equal(content, style):
        raise alike(f"the same LoRA twice ({pair.content.name} and {pair.style.name})")
    return pair_modules(content, style)


def check_sizes(pictures: Sequence[Tensor], unit: int) -> None:
    """Refuse no pictures, several sizes, and sides that the VAE would crop.

    Args:
        pictures: the pictures `(h, w, 3)` to judge.
        unit: pixels along the side of one element of the latent.

    Raises:
        ZipLoRAError: pictures that cannot be judged together.
    """
    sizes = sorted({(p.shape[1], p.shape[0]) for p in pictures})
    if not sizes:
        advice = "Connect VAE Decode, or the images output of Strength Grid."
    elif any(side % unit for size in sizes for side in size):
        advice = f"Crop or scale the images to multiples of {unit}."
    elif len(sizes) > 1:
        advice = "Judge the images of each size on their own."
    else:
        return
    raise problem(
        "images",
        found=", ".join(f"{w} × {h}" for w, h in sizes) + " pixels" if sizes else "no pictures",
        expected=f"pictures of one size whose sides are multiples of {unit}",
        advice=advice,
    )


def _refuse_zero(lora: LoRA, modules: Mapping[str, LoraFactors]) -> None:
    if not any(f.scale and f.up.any() and f.down.any() for f in modules.values()):
        raise does_nothing(f"{lora.name}, whose updates are all zero")


def _equal(content: Mapping[str, LoraFactors], style: Mapping[str, LoraFactors]) -> bool:
    return content.keys() == style.keys() and all(
        f.scale == style[name].scale
        and torch.equal(f.up, style[name].up)
        and torch.equal(f.down, style[name].down)
        for name, f in content.items()
    )
