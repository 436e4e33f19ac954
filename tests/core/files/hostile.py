"""Small files that ask for gigabytes or for ever, built by code."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

Q = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
DOTTED = "input_blocks.4.1.transformer_blocks.0.attn1.to_q"


def ones(*shape: int, dtype: torch.dtype = torch.float16) -> Tensor:
    return torch.ones(*shape, dtype=dtype)


def numbered(depth: int) -> str:
    return Q.replace("_blocks_0_", f"_blocks_{depth}_")


def lora(**others: Tensor) -> dict[str, Tensor]:
    return {f"{Q}.lora_down.weight": ones(1, 8), f"{Q}.lora_up.weight": ones(8, 1), **others}


def lokr(out: int, width: int, value: float = 1.0) -> dict[str, Tensor]:
    """A LoKr of rank 1 with `out` squared output features and `width` squared input features."""
    parts = {"w1_a": (out, 1), "w1_b": (1, width), "w2_a": (out, 1), "w2_b": (1, width)}
    return {
        f"{Q}.lokr_{part}": value * ones(*shape, dtype=torch.float32)
        for part, shape in parts.items()
    }


def many_lokrs(count: int) -> dict[str, Tensor]:
    """Modules that are each as wide as a layer may be; all together are more than a model."""
    one = {"w1": (181, 181), "w2_a": (181, 90), "w2_b": (90, 181)}
    return {
        f"{numbered(number)}.lokr_{part}": ones(*shape)
        for number in range(count)
        for part, shape in one.items()
    }


def cores() -> dict[str, Tensor]:
    parts = {"lora_down": (1, 20000, 1, 1), "lora_mid": (1, 1, 200, 200), "lora_up": (4, 1, 1, 1)}
    return {f"{Q}.{part}.weight": ones(*shape) for part, shape in parts.items()}


def loha() -> dict[str, Tensor]:
    """A LoHa with cores whose kernels are as large as an image."""
    sizes = {"w1_a": (1, 4), "w1_b": (1, 20000), "w2_a": (1, 4), "w2_b": (1, 20000)}
    kernels = {part: (1, 1, 200, 200) for part in ("t1", "t2")}
    return {f"{Q}.hada_{part}": ones(*shape) for part, shape in (sizes | kernels).items()}


TENSORS: dict[str, tuple[Callable[[], dict[str, Tensor]], str]] = {
    "LoKr": (lambda: lokr(20000, 1), "the product of an update of 400000000 x 1"),
    "LoKr, wide": (lambda: lokr(1, 20000), "the product of an update of 1 x 400000000"),
    "many LoKrs": (lambda: many_lokrs(9), r"products that are \d+\.\d GB as a plain LoRA"),
    "core": (cores, "the product of an update of 4 x 800000000"),
    "LoHa": (loha, "the product of an update of 4 x 800000000"),
    "dense": (
        lambda: {f"diffusion_model.{DOTTED}.diff": ones(4096, 4096)},
        "a full-weight difference of 4096 x 4096",
    ),
    "overflow": (lambda: lokr(4, 4, 1e30), "an update that is infinite in float32"),
    "overflow of the update": (
        lambda: {key: 1e30 * tensor.float() for key, tensor in lora().items()},
        "an update that is infinite in float32",
    ),
    "key": (lambda: {**lora(), f"{'x' * 3_000_000}.alpha": ones(1)}, "a key of 3000006 letters"),
}


def expanded() -> dict[str, Tensor]:
    """One number that is a tensor of 100 million."""
    return lora(**{f"{Q}.lora_down.weight": ones(1, 1).expand(4, 25_000_000)})


def shared() -> dict[str, Tensor]:
    """Many keys for the same megabyte."""
    down, up = ones(1, 500_000), ones(8, 1)
    halves = {"lora_down": down, "lora_up": up}
    return {
        f"{numbered(n)}.{half}.weight": tensor
        for n in range(1000)
        for half, tensor in halves.items()
    }


def meta() -> dict[str, Tensor]:
    return {key: tensor.to("meta") for key, tensor in lora().items()}


def nested() -> dict[str, Tensor]:
    return lora(**{f"{Q}.alpha": torch.nested.nested_tensor([ones(2), ones(3)])})


def quantised() -> dict[str, Tensor]:
    down = torch.quantize_per_tensor(torch.ones(1, 8), 0.1, 0, torch.qint8)
    return lora(**{f"{Q}.lora_down.weight": down})


def save_deflated(path: Path) -> None:
    """A file of kilobytes that is inflated to megabytes."""
    buffer = io.BytesIO()
    torch.save(lora(**{f"{Q}.lora_down.weight": torch.zeros(1, 5_000_000)}), buffer)
    with (
        zipfile.ZipFile(buffer) as stored,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as deflated,
    ):
        for entry in stored.infolist():
            deflated.writestr(entry.filename, stored.read(entry))


def save_overlapping(path: Path) -> None:
    """An archive in which many names stand for the same bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        archive.writestr("archive/data/0", bytes(1_000_000))
        archive.filelist += [archive.filelist[-1]] * 1000


class Growing:
    """A pickle that calls a function by which it grows."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[object, ...]:
        return self.call


def colliding(count: int) -> dict[int, int]:
    """Keys whose hashes are equal, so that the time to collect them grows with their square."""
    return {number * ((1 << 61) - 1): 0 for number in range(1, count)}


def save_safetensors(path: Path, tensors: dict[str, Tensor], **metadata: str) -> Path:
    safetensors.torch.save_file(tensors, path, metadata)
    return path


def save_header(path: Path, fields: object) -> Path:
    text = json.dumps(fields).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    return path
