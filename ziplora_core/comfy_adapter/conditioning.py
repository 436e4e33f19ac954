"""CONDITIONING as one sample of a training batch, prepared by ComfyUI's own conversion."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.conds
import comfy.sampler_helpers
import comfy.samplers
import torch

from ..branches import as_long
from ..errors import problem

_SIZES = {"width", "height", "crop_w", "crop_h", "target_width", "target_height"}
_KNOWN = {"pooled_output", *_SIZES}


@dataclass(frozen=True)
class Conditioning:
    """What ComfyUI hands its UNet for one prompt: `c_crossattn`, `y`, … of `comfy.conds`."""

    parts: Mapping[str, comfy.conds.CONDRegular]

    def joins(self, other: Conditioning) -> bool:
        """Whether ComfyUI itself would put the two into one batch (prompts of 77 and 154 tokens do,
        by repetition; of 77 and 77·5 do not)."""
        return comfy.samplers.cond_equal_size(self.parts, other.parts)


def batch(conditionings: list[Conditioning]) -> dict[str, torch.Tensor]:
    """Concatenate samples as ComfyUI's sampler does."""
    return comfy.samplers.cond_cat([c.parts for c in conditionings])


def check(conditioning: Any, name: str, model: Any) -> None:
    """Refuse what a single-prompt training step on this model cannot honour.

    Args:
        conditioning: ComfyUI's `[[context, {"pooled_output": …}]]`.
        name: of the input, for messages.
        model: a `BaseModel`.

    Raises:
        ZipLoRAError: not one entry, no pooled output, another model's width, not finite, or a mask,
            area, time range, ControlNet, hook or anything else that changes the prediction.
    """
    found = _fault(conditioning, model.model_config.unet_config.get("context_dim"))
    if found is not None:
        raise problem(
            name,
            found=found,
            expected="one plain prompt with its pooled output",
            advice="Connect one CLIP Text Encode whose CLIP comes from the same checkpoint.",
        )


def _fault(conditioning: Any, width: int | None) -> str | None:
    """Say what is wrong with a CONDITIONING, None when nothing is."""
    if len(conditioning) != 1:
        return f"{len(conditioning)} entries"
    context, extras = conditioning[0]
    pooled = extras.get("pooled_output")
    if pooled is None:
        return "no pooled output"
    if len(context) != 1:
        return f"a batch of {len(context)}"
    if width is not None and context.shape[-1] != width:
        return f"a prompt of width {context.shape[-1]} where this model takes {width}"
    if not (torch.isfinite(context).all() and torch.isfinite(pooled).all()):
        return "NaN or infinity"
    changed = sorted(k for k, value in extras.items() if k not in _KNOWN and value is not None)
    return ", ".join(changed) or None


def prepare(model: Any, conditioning: Any, latent: torch.Tensor) -> Conditioning:
    """Convert one checked CONDITIONING for latents of one size.

    SDXL's size conditioning is the latent's own size unless the conditioning says otherwise
    (CLIPTextEncodeSDXL), as in ComfyUI's sampler. A model that also takes a picture (inpainting,
    InstructPix2Pix) is given what that sampler gives it for an empty latent without a mask: the
    whole picture masked, nothing in it.

    Args:
        model: a `BaseModel` on its device.
        conditioning: ComfyUI's `[[context, {"pooled_output": …}]]`.
        latent: `(1, c, h, w)`, on the model's device; only its height and width count.
    """
    plain = [[_plain(c), {k: _plain(v) for k, v in extras.items()}] for c, extras in conditioning]
    empty = latent.new_zeros(1, model.latent_format.latent_channels, *latent.shape[-2:])
    converted = comfy.samplers.encode_model_conds(
        model.extra_conds,
        comfy.sampler_helpers.convert_cond(plain),
        empty,
        empty.device,
        "positive",
        latent_image=empty,
    )
    parts = converted[0]["model_conds"]
    return Conditioning(
        {
            key: part.process_cond(batch_size=1, area=None)._copy_with(part.cond.to(latent.device))
            for key, part in parts.items()
        }
    )


def own_prompts(conditionings: Sequence[Any], joint: Any) -> torch.Tensor:
    """Put what each branch reads beside a joint prompt into one tensor `(branch, token, width)`.

    Args:
        conditionings: checked CONDITIONING, one a branch.
        joint: CONDITIONING that the model itself reads.

    Raises:
        ZipLoRAError: the joint prompt's length is no multiple of theirs.
    """
    return as_long(contexts(conditionings), joint[0][0].shape[1])


def contexts(conditionings: Sequence[Any]) -> torch.Tensor:
    """Put checked CONDITIONING, one a branch, into `(branch, token, width)`, all equally long."""
    read = [context.clone().float() for [[context, _]] in conditionings]  # (1, token, width)
    tokens = math.lcm(*(context.shape[1] for context in read))
    return torch.cat([as_long(context, tokens) for context in read])


def zeroed(conditioning: Any) -> Any:
    """Zero a CONDITIONING as the stock ConditioningZeroOut does: the unconditional half."""
    return [
        [
            torch.zeros_like(context),
            {**extras, "pooled_output": torch.zeros_like(extras["pooled_output"])},
        ]
        for context, extras in conditioning
    ]


def _plain(value: Any) -> Any:
    """Copy an inference tensor out, so that autograd may save it."""
    return value.clone() if isinstance(value, torch.Tensor) else value
