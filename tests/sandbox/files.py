"""Write tiny checkpoints, LoRAs and pictures under the names that the shipped workflows use.

Run by `setup.py` with the sandbox's Python: `python -m sandbox.files`.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFilter
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from .paths import BASE, use_comfyui

CHECKPOINT = "sd_xl_base_1.0.safetensors"
TUNED = "my_finetuned_sdxl.safetensors"

LORAS = {
    "my_subject.safetensors": {"seed": 1, "rank": 8, "text_encoder": True},
    "my_style.safetensors": {"seed": 2, "rank": 4, "text_encoder": False},
}
TRIGGERS = {"my_subject.safetensors": "sks dog", "my_style.safetensors": "in watercolor style"}

SUBJECT_FOLDER = "ziplora_subject"
LOW_FOLDER, HIGH_FOLDER = "ziplora_slider_low", "ziplora_slider_high"
STYLE_PICTURE = "ziplora_style.png"
UNZIP_PICTURES = {
    "unziplora_a.png": ("#d98a9e", ImageFilter.CONTOUR()),
    "unziplora_b.png": ("#8a5a2b", ImageFilter.GaussianBlur(5)),
}
"""Colour of the fur and style of each picture for UnZipLoRA."""
ROOMS = {  # size, colour of the wall, colour of the floor
    "1_square.png": ((256, 256), "#a9c4d8", "#7d8f63"),
    "2_wide.png": ((320, 224), "#e3d3b4", "#9c6b4a"),
    "3_tall.jpg": ((208, 304), "#c9b3d1", "#6f6a86"),
    "4_small.png": ((192, 176), "#bcd6bf", "#587a5d"),
    "5_large.jpg": ((384, 288), "#f0e2e2", "#b8a08a"),
}


def write_files(models: Path) -> None:
    """Write `sd_xl_base_1.0`, `my_subject` and `my_style`, always with the same bytes."""
    from .tiny import make_lora, save_tiny_checkpoint, tiny_clip, tiny_sdxl

    torch.set_num_threads(1)
    save_tiny_checkpoint(models / "checkpoints" / CHECKPOINT)
    model, clip = tiny_sdxl(), tiny_clip()
    for name, options in LORAS.items():
        lora = make_lora(model, clip, **options)
        half = {key: tensor.half().contiguous() for key, tensor in lora.items()}
        data = _save(half, _metadata(name, options["rank"]))
        (models / "loras" / name).write_bytes(data)


def write_tuned(checkpoints: Path) -> None:
    """Write a fine-tuned checkpoint: the UNet's matrices change by rank 8, its biases a little."""
    generator = torch.Generator().manual_seed(3)
    tensors = load_file(checkpoints / CHECKPOINT)
    for name, weight in tensors.items():
        if name.startswith("model.diffusion_model.") and weight.ndim >= 2:
            rows, columns = weight.flatten(1).shape
            up, down = (torch.randn(side, 8, generator=generator) for side in (rows, columns))
            change = (up @ down.T).reshape(weight.shape) * (8 * columns) ** -0.5
            tensors[name] = (weight.float() + 0.1 * change).half()
        elif name.startswith("model.diffusion_model.") and name.endswith(".bias"):
            tensors[name] = weight + 0.01
    save_file(tensors, checkpoints / TUNED)


def write_pictures(inputs: Path) -> None:
    """Draw the pictures of the subject, the slider pairs, the style and UnZipLoRA."""
    folder = inputs / SUBJECT_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, (size, wall, floor) in ROOMS.items():
        _animal(size, wall, floor).save(folder / name, quality=95)
    for name, fur in ((LOW_FOLDER, "#4a3018"), (HIGH_FOLDER, "#e0b070")):
        (inputs / name).mkdir(exist_ok=True)
        for file, ((width, height), wall, floor) in ROOMS.items():
            picture = _animal((width, height), wall, floor, fur=fur)
            picture.save(inputs / name / file, quality=95)
    painted = _animal((256, 256), "#f7efdc", "#dfc9e4", fur="#d98a9e")
    painted.filter(ImageFilter.GaussianBlur(5)).save(inputs / STYLE_PICTURE)
    for name, (fur, style) in UNZIP_PICTURES.items():
        _animal((256, 256), "#cfe3ea", "#e6d3a8", fur=fur).filter(style).save(inputs / name)


def _animal(size: tuple[int, int], wall: str, floor: str, fur: str = "#8a5a2b") -> Image.Image:
    """Draw a four-legged animal in the middle of a room."""
    picture = Image.new("RGB", size, wall)
    draw = ImageDraw.Draw(picture)
    width, height = size
    draw.rectangle((0, 0.7 * height, width, height), fill=floor)
    unit = min(size) / 10
    x, y = width / 2, 0.6 * height

    def ellipse(left: float, top: float, right: float, bottom: float, colour: str) -> None:
        box = (x + left * unit, y + top * unit, x + right * unit, y + bottom * unit)
        draw.ellipse(box, fill=colour)

    for leg in (-2.3, -1.2, 0.6, 1.6):
        ellipse(leg, 0.0, leg + 0.8, 2.8, fur)
    ellipse(-3.0, -1.4, 3.0, 1.4, fur)
    ellipse(1.4, -3.4, 4.2, -0.6, fur)
    ellipse(1.2, -3.8, 2.2, -1.4, "#4a2c12")
    ellipse(3.0, -2.6, 3.5, -2.1, "#101010")
    ellipse(3.8, -2.0, 4.6, -1.3, "#20140c")
    return picture


def _metadata(name: str, rank: int) -> dict[str, str]:
    """Make the metadata of a trainer, as far as it is read."""
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
    """Serialise as safetensors does, but with ordered metadata; its own order varies by run."""
    data = save(tensors)
    (length,) = struct.unpack("<Q", data[:8])
    header = {"__metadata__": metadata, **json.loads(data[8 : 8 + length])}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


if __name__ == "__main__":
    use_comfyui()
    from .family_files import write_families

    write_families(BASE / "models")
    write_files(BASE / "models")
    write_tuned(BASE / "models" / "checkpoints")
    write_pictures(BASE / "input")
