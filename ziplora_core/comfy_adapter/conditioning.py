"""CONDITIONING as one sample of a training batch, prepared by ComfyUI's own conversion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import comfy.conds
import comfy.sampler_helpers
import comfy.samplers
import torch

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


def check(conditioning: Any, name: str) -> None:
    """Refuse what a single-prompt training step cannot honour.

    Raises:
        ZipLoRAError: not one entry, no pooled output, or a mask, area, time range, ControlNet,
            hook or anything else that changes the prediction.
    """
    advice = "Connect one CLIP Text Encode whose CLIP comes from the SDXL checkpoint."
    if len(conditioning) != 1:
        raise problem(
            name, found=f"{len(conditioning)} entries", expected="one prompt", advice=advice
        )
    context, extras = conditioning[0]
    if extras.get("pooled_output") is None:
        raise problem(
            name,
            found="no pooled output",
            expected="the pooled output of SDXL's second text encoder",
            advice=advice,
        )
    if len(context) != 1:
        raise problem(
            name, found=f"a batch of {len(context)}", expected="one prompt", advice=advice
        )
    changed = sorted(
        key for key, value in extras.items() if key not in _KNOWN and value is not None
    )
    if changed:
        raise problem(
            name,
            found=f"{', '.join(changed)}",
            expected="a plain prompt without masks, areas, time ranges, ControlNets or hooks",
            advice=advice,
        )


def prepare(model: Any, conditioning: Any, latent: torch.Tensor) -> Conditioning:
    """Convert one checked CONDITIONING for latents of one size.

    SDXL's size conditioning is the latent's own size unless the conditioning says otherwise
    (CLIPTextEncodeSDXL), as in ComfyUI's sampler.

    Args:
        model: a `BaseModel` on its device.
        conditioning: ComfyUI's `[[context, {"pooled_output": …}]]`.
        latent: `(1, c, h, w)`, on the model's device; only its size counts.
    """
    plain = [[_plain(c), {k: _plain(v) for k, v in extras.items()}] for c, extras in conditioning]
    converted = comfy.samplers.encode_model_conds(
        model.extra_conds,
        comfy.sampler_helpers.convert_cond(plain),
        latent,
        latent.device,
        "positive",
    )
    parts = converted[0]["model_conds"]
    return Conditioning(
        {
            key: part.process_cond(batch_size=1, area=None)._copy_with(part.cond.to(latent.device))
            for key, part in parts.items()
        }
    )


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
    return value.detach().clone() if isinstance(value, torch.Tensor) else value
