"""Sizes of the optimiser's state and of the saved file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import comfy.model_base
import torch
from torch import Size

from sandbox import tiny

from ..table import Table

MIB = 2**20


COLUMNS = {
    "parameters": ",.0f",
    "AdamW state MiB": ",.1f",
    "fp16 file MiB": ",.1f",
    "of full": ".1%",
}


def tables() -> Iterator[Table]:
    """Count the bytes of full fine-tuning and of attention LoRAs, for tiny and real SDXL."""
    for name, model in {"tiny SDXL": tiny.tiny_sdxl().model, "SDXL": tiny.sdxl_meta()}.items():
        full = [weight.shape for weight in model.diffusion_model.parameters()]
        tuned = {
            "LoRA, attention, rank 64": lora_shapes(model, 64),
            "LoRA, attention, rank 8": lora_shapes(model, 8),
            "full fine-tuning": full,
        }
        whole = sum(shape.numel() for shape in full)
        rows = {}
        for method, shapes in tuned.items():
            parameters = sum(shape.numel() for shape in shapes)
            figures = (parameters, adamw_bytes(shapes) / MIB, 2 * parameters / MIB)
            rows[method] = dict(zip(COLUMNS, (*figures, parameters / whole), strict=True))
        yield Table(f"What training a LoRA keeps, {name}'s UNet", COLUMNS, rows)


def lora_shapes(model: comfy.model_base.BaseModel, rank: int) -> list[Size]:
    """Return the shapes of down and up of every attention linear."""
    weights = model.state_dict()
    shapes = [weights[key].shape for key in tiny.attention_linears(model)]
    return [s for out, inner in shapes for s in (Size((rank, inner)), Size((out, rank)))]


def adamw_bytes(shapes: Iterable[Size]) -> int:
    """Take one float32 step of AdamW on meta tensors, and count the bytes of its state."""
    parameters = [torch.zeros(shape, device="meta", requires_grad=True) for shape in shapes]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimiser = torch.optim.AdamW(parameters)
    optimiser.step()
    tensors = [t for state in optimiser.state.values() for t in state.values()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
