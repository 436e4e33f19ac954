"""Write the tiny checkpoint and LoRAs under the names that the shipped workflows use.

Run by `setup.py` with the sandbox's Python: `python -m sandbox.files`.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from .paths import BASE, use_comfyui

LORAS = {
    "my_subject.safetensors": {"seed": 1, "rank": 8, "text_encoder": True},
    "my_style.safetensors": {"seed": 2, "rank": 4, "text_encoder": False},
}
TRIGGERS = {"my_subject.safetensors": "sks dog", "my_style.safetensors": "in watercolor style"}


def write_files(models: Path) -> None:
    """Write `sd_xl_base_1.0`, `my_subject` and `my_style`; the same bytes each time."""
    from .tiny import make_lora, save_tiny_checkpoint, tiny_clip, tiny_sdxl

    torch.set_num_threads(1)
    save_tiny_checkpoint(models / "checkpoints" / "sd_xl_base_1.0.safetensors")
    model, clip = tiny_sdxl(), tiny_clip()
    for name, options in LORAS.items():
        lora = make_lora(model, clip, **options)
        half = {key: tensor.half().contiguous() for key, tensor in lora.items()}
        data = _save(half, _metadata(name, options["rank"]))
        (models / "loras" / name).write_bytes(data)


def _metadata(name: str, rank: int) -> dict[str, str]:
    """What a trainer writes into its files, as far as anyone reads it."""
    trigger = TRIGGERS[name]
    return {
        "ss_base_model_version": "sdxl_base_v1-0",
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(float(rank)),
        "ss_output_name": Path(name).stem,
        "ss_tag_frequency": json.dumps({f"10_{trigger}": {trigger: 10}}),
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
    }


def _save(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """Serialise as safetensors does, but with the metadata in order; its own varies by run."""
    data = save(tensors)
    (length,) = struct.unpack("<Q", data[:8])
    header = {"__metadata__": metadata, **json.loads(data[8 : 8 + length])}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


if __name__ == "__main__":
    use_comfyui()
    write_files(BASE / "models")
