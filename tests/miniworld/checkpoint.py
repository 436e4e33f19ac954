"""The trained miniature SDXL as a file: small in the repository, whole where ComfyUI loads it.

The small file leaves out what the seed gives back: the rows of the token embeddings that no caption
uses, and the encoder, which is not trained.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sandbox.tiny import prediction_keys
from sandbox.tiny_pack.models import CLIP_PREFIX

from .errors import MiniWorldError
from .latents import new_vae
from .network import new_text_encoders
from .train_decoder import DecoderTraining
from .train_model import ModelTraining

WEIGHTS = Path(__file__).resolve().parent / "weights"
CHECKPOINT = "mini_sdxl.safetensors"
SMALL = WEIGHTS / CHECKPOINT
EMBEDDING = "transformer.text_model.embeddings.token_embedding.weight"
PARTS = ("clip_l", "clip_g")

StateDict = dict[str, Tensor]


def save_small(model: ModelTraining, decoder: DecoderTraining, path: Path) -> None:
    """Write the averaged weights in half precision, about 18 MB."""
    text = model.text.weights()
    embeddings = {f"encoders.{part}.{EMBEDDING}" for part in PARTS}
    tensors = {
        "unet": model.averaged.of(model.unet),
        "text": {name: t for name, t in text.items() if name not in embeddings},
        "vae": {
            name: t
            for name, t in decoder.averaged.of(decoder.vae).items()
            if name.startswith("taesd_decoder.")
        },
    }
    flat = {
        f"{group}.{name}": tensor.half().contiguous()
        for group, part in tensors.items()
        for name, tensor in part.items()
    }
    flat["ids"] = torch.tensor(model.text.vocabulary.ids)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(flat, path)


def write_checkpoint(path: Path, small: Path = SMALL) -> None:
    """Write MODEL, CLIP and VAE as one file that `CheckpointLoaderSimple` loads.

    Raises:
        MiniWorldError: the small file is missing or damaged.
    """
    tensors = read(small)
    unet, text, decoder = (_part(tensors, f"{name}.") for name in ("unet", "text", "vae"))
    encoders = dict(new_text_encoders(0).state_dict())
    encoders |= {k.removeprefix("encoders."): v for k, v in text.items() if k[:5] != "rows."}
    for i, part in enumerate(PARTS):
        encoders[f"{part}.{EMBEDDING}"][tensors["ids"]] = text[f"rows.{i}"].float()
    whole = {
        "model.diffusion_model.": unet,
        CLIP_PREFIX: encoders,
        "first_stage_model.": {**new_vae().state_dict(), **decoder},
    }
    halves = {
        prefix + name: tensor.half().contiguous()
        for prefix, part in whole.items()
        for name, tensor in part.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")  # in one piece: others may write or read it
    save_file({**halves, **prediction_keys("v", zsnr=True)}, part)
    part.replace(path)


def _part(tensors: StateDict, prefix: str) -> StateDict:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def read(path: Path) -> StateDict:
    """Read a file of the world.

    Raises:
        MiniWorldError: it is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise MiniWorldError(
            f"{path}: found no readable file ({error}), expected what `make miniworld` trained. "
            f"Bring it back with `git checkout -- {path.name}` in its folder, or train it again "
            "with `make miniworld`."
        ) from error


def ready_checkpoint(path: Path) -> Path:
    """Give the path of a whole checkpoint, written anew unless it is the one the small file makes.

    Raises:
        MiniWorldError: as `write_checkpoint`.
    """
    stamp = path.with_suffix(".sha256")
    if not (path.is_file() and stamp.is_file() and stamp.read_text() == _stamp(path)):
        write_checkpoint(path)
        stamp.write_text(_stamp(path))
    return path


def _stamp(path: Path) -> str:
    """Hash the checkpoint's sources and the checkpoint."""
    digests = []
    for file in (SMALL, path):
        if not file.is_file():
            read(file)
        digests.append(hashlib.sha256(file.read_bytes()).hexdigest())
    return " ".join(digests)
