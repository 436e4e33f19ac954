"""Conversion of CONDITIONING to samples of a training batch, by ComfyUI's own functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.conds
import comfy.sampler_helpers
import comfy.samplers
import torch

from ...errors import problem
from .family import prompt_width, reads_pooled

_SIZES = {"width", "height", "crop_w", "crop_h", "target_width", "target_height"}
_KNOWN = {
    *("pooled_output", "guidance", "attention_mask", "t5xxl_ids", "t5xxl_weights"),
    *_SIZES,
}
"""The entries that describe one prompt, of all families of models."""


@dataclass(frozen=True)
class Conditioning:
    """The inputs that ComfyUI passes to the model for one prompt: `c_crossattn`, `y`, …"""

    parts: Mapping[str, comfy.conds.CONDRegular]

    def joins(self, other: Conditioning) -> bool:
        """Return whether ComfyUI would put both into one batch.

        It repeats prompts, so 77 and 154 tokens share a batch, while 77 and 77·5 do not.
        """
        return comfy.samplers.cond_equal_size(self.parts, other.parts)


def batch(conditionings: list[Conditioning]) -> dict[str, torch.Tensor]:
    """Concatenate samples as ComfyUI's sampler does."""
    return comfy.samplers.cond_cat([c.parts for c in conditionings])


def check(conditioning: Any, name: str, model: Any) -> None:
    """Refuse a CONDITIONING that a training step with a single prompt cannot represent.

    Args:
        conditioning: ComfyUI's `[[context, {"pooled_output": …}]]`.
        name: name of the input, for messages.
        model: a `BaseModel`.

    Raises:
        ZipLoRAError: there is not exactly one entry, no pooled output where the model reads it, a
            width of another model, a value that is not finite, or a mask, area, time range,
            ControlNet, hook or other entry that changes the prediction.
    """
    found = _fault(conditioning, model)
    if found is not None:
        pooled = " with its pooled output" if reads_pooled(model) else ""
        raise problem(
            name,
            found=found,
            expected=f"one plain prompt{pooled}",
            advice="Connect one CLIP Text Encode whose CLIP comes from the same checkpoint.",
        )


def _fault(conditioning: Any, model: Any) -> str | None:
    """Return a description of what is wrong with a CONDITIONING for a `BaseModel`, or None."""
    width = prompt_width(model)
    if len(conditioning) != 1:
        return f"{len(conditioning)} entries"
    context, extras = conditioning[0]
    pooled = extras.get("pooled_output")
    if pooled is None and reads_pooled(model):
        return "no pooled output"
    if len(context) != 1:
        return f"a batch of {len(context)}"
    if width is not None and context.shape[-1] != width:
        return f"a prompt of width {context.shape[-1]} where this model takes {width}"
    if not all(torch.isfinite(t).all() for t in (context, pooled) if t is not None):
        return "NaN or infinity"
    changed = sorted(k for k, value in extras.items() if k not in _KNOWN and value is not None)
    return ", ".join(changed) or None


def prepare(model: Any, conditioning: Any, latent: torch.Tensor) -> Conditioning:
    """Convert one checked CONDITIONING for latents of one size.

    As in ComfyUI's sampler, SDXL's size conditioning is the size of the latent unless the
    conditioning has its own (CLIPTextEncodeSDXL). A model that also takes a picture (inpainting,
    InstructPix2Pix) gets the sampler's input for an empty latent without a mask: an empty picture
    that is masked as a whole.

    Args:
        model: a `BaseModel` on its device.
        conditioning: ComfyUI's `[[context, {"pooled_output": …}]]`.
        latent: latent `(1, c, [1,] h, w)` on the model's device; only its size is used.
    """
    plain = [[_plain(c), {k: _plain(v) for k, v in extras.items()}] for c, extras in conditioning]
    empty = latent.new_zeros(1, model.latent_format.latent_channels, *latent.shape[2:])
    converted = comfy.samplers.encode_model_conds(
        model.extra_conds,
        comfy.sampler_helpers.convert_cond(plain),
        empty,
        empty.device,
        "positive",
        latent_image=empty,
    )
    parts = converted[0]["model_conds"]
    return Conditioning({key: _placed(part, latent.device) for key, part in parts.items()})


def _placed(part: comfy.conds.CONDRegular, device: torch.device) -> comfy.conds.CONDRegular:
    """Process one input as ComfyUI's sampler does; a number (of tokens) has no device."""
    if not isinstance(part.cond, torch.Tensor):
        return part
    return part.process_cond(batch_size=1, area=None)._copy_with(part.cond.to(device))


def own_prompts(conditionings: Sequence[Any], joint: Any) -> torch.Tensor:
    """Stack the branches' own prompts, repeated to a length that the joint prompt's fits into.

    Args:
        conditionings: checked CONDITIONING, one for each branch.
        joint: CONDITIONING that the model itself reads.

    Returns:
        a float32 tensor `(branch, token, width)`.
    """
    return contexts([*conditionings, joint])[:-1]


def contexts(conditionings: Sequence[Any]) -> torch.Tensor:
    """Stack checked CONDITIONING to `(branch, token, width)`, float32, as ComfyUI batches prompts.

    It repeats each to the least length that all fit into.
    """
    first, *others = (
        comfy.conds.CONDCrossAttn(context.clone().float()) for [[context, _]] in conditionings
    )
    return first.concat(others)


def zeroed(conditioning: Any) -> Any:
    """Zero a CONDITIONING as the stock ConditioningZeroOut does, for the unconditional half."""
    return [
        [torch.zeros_like(context), extras | _zeroed_pooled(extras)]
        for context, extras in conditioning
    ]


def _zeroed_pooled(extras: dict[str, Any]) -> dict[str, Any]:
    """Zero the pooled output, which is None where a text encoder has none."""
    pooled = extras.get("pooled_output")
    return {} if pooled is None else {"pooled_output": torch.zeros_like(pooled)}


def _plain(value: Any) -> Any:
    """Copy a tensor, as autograd cannot save those made in inference mode."""
    return value.clone() if isinstance(value, torch.Tensor) else value
