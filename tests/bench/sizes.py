"""What has to be kept: the optimiser's state while training, the file afterwards."""

from __future__ import annotations

from collections.abc import Iterable

import comfy.model_base
import torch
from torch import Size

from sandbox import tiny

from .table import print_table

MIB = 2**20


def print_sizes() -> None:
    """Print the bytes of full fine-tuning and of attention LoRAs, for tiny and real SDXL."""
    models = {"tiny SDXL": tiny.tiny_sdxl().model, "SDXL": tiny.sdxl_meta()}
    for name, model in models.items():
        full = [weight.shape for weight in model.diffusion_model.parameters()]
        tuned = {
            "LoRA, attention, rank 64": lora_shapes(model, 64),
            "LoRA, attention, rank 8": lora_shapes(model, 8),
            "full fine-tuning": full,
        }
        rows = []
        for method, shapes in tuned.items():
            parameters, state = sum(shape.numel() for shape in shapes), adamw_bytes(shapes)
            rows.append(
                (
                    method,
                    f"{parameters:,}",
                    f"{state / MIB:,.1f}",
                    f"{2 * parameters / MIB:,.1f}",
                    f"{parameters / sum(shape.numel() for shape in full):.1%}",
                )
            )
        head = (f"{name}: UNet", "parameters", "AdamW state MiB", "fp16 file MiB", "of full")
        print_table(head, rows)


def lora_shapes(model: comfy.model_base.BaseModel, rank: int) -> list[Size]:
    """List down and up of every attention linear."""
    weights = model.state_dict()
    shapes = [weights[key].shape for key in tiny.attention_linears(model)]
    return [s for out, inner in shapes for s in (Size((rank, inner)), Size((out, rank)))]


def adamw_bytes(shapes: Iterable[Size]) -> int:
    """Take one step of AdamW, float32, without memory, and count the bytes of its state."""
    parameters = [torch.zeros(shape, device="meta", requires_grad=True) for shape in shapes]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimiser = torch.optim.AdamW(parameters)
    optimiser.step()
    tensors = [t for state in optimiser.state.values() for t in state.values()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
