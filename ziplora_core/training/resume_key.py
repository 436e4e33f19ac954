"""The inputs that a training's result depends on, and the checkpoint folder of equal inputs.

Another card, driver or dtype computes slightly different numbers from the same inputs, and must
find the same checkpoint. So only exact inputs are hashed: settings, texts, pictures in eight bits,
factors of LoRA files. Numbers that a device has rounded or computed are stored beside the
checkpoint and compared; a hash of rounded numbers would change wherever a number lies on the
boundary between two values.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ..files.atomic import write_bytes

logger = logging.getLogger(__name__)

VERSION = 6
"""Version of the training procedure and of its checkpoints; others are named and not resumed."""
_FOLDERS = 5
"""Part of a folder's name. It stays, so that the checkpoint of another version is found."""
WITHOUT_EFFECT = frozenset(
    (
        *("resume", "checkpoint_every", "held_out_draws", "sample_every", "sample_prompts"),
        *("images_per_validation", "saves_per_validation", "validation_steps"),
        *("range", "start_percent", "memory", "early_stop", "literal_captions"),
    )
)
"""Settings and options of all trainers that do not affect a result (`early_stop`: see below).
`memory` changes the order of sums, as another card does: only their rounding. `literal_captions`
has its effect on the captions, which count."""
SAME_WEIGHT, TINY = 2.0**-8, 2.0**-24
"""Largest relative difference of a weight that counts as rounding to fp16 or bf16; TINY allows for
the smallest ones in fp16. All sampled weights must agree: where one checkpoint was fine-tuned from
the other, some of those near 0 do not."""
SAME_PROMPT = 0.01
"""Largest difference (rms) of a token, relative to the rms of all, that counts as rounding.
ComfyUI's text encoders compute in float32 on every device; bf16 is exact to 0.002. (dog:1.05)
changes a token by 0.05 of the word's effect on it."""
SAME_LATENT = 0.05
"""The same for a row of a picture's latents: VAEs also compute in bf16, or in tiles. Another
picture differs by more than 1, a changed spot two latents wide by 0.1 in its rows."""
_FILE = "inputs.numbers"


def settings_that_count(settings: Any, stops_early: bool = False) -> dict[str, Any]:
    """Return those of a node's settings that its result depends on.

    Settings that matter only sometimes, such as a penalty's form where its weight may be 0, are
    included: at worst a training starts anew.

    Args:
        settings: a trainer's settings, with its `options`.
        stops_early: whether the method has a stopping rule; elsewhere `early_stop` has no effect.
    """
    without = WITHOUT_EFFECT - ({"early_stop"} if stops_early else set())
    exact = asdict(settings)
    exact["options"] = {k: value for k, value in exact["options"].items() if k not in without}
    known = {k: value for k, value in exact.items() if k not in without}
    return {"method": type(settings).__name__, **known}


@dataclass(frozen=True)
class Inputs:
    """All inputs that a result depends on.

    Args:
        exact: exact inputs, as JSON values.
        weights: weights as loaded, possibly rounded to another dtype.
        prompts: outputs of the text encoders, with the token's features on the last axis.
        latents: a VAE's latents of pictures, `(…, h, w)`.
    """

    exact: Mapping[str, Any]
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    prompts: Mapping[str, Tensor] = field(default_factory=dict)
    latents: Mapping[str, Tensor] = field(default_factory=dict)

    def __or__(self, other: Inputs) -> Inputs:
        return Inputs(
            {**self.exact, **other.exact},
            {**self.weights, **other.weights},
            {**self.prompts, **other.prompts},
            {**self.latents, **other.latents},
        )

    @property
    def key(self) -> str:
        """The hash of the exact inputs."""
        text = json.dumps([_FOLDERS, self.exact], sort_keys=True, default=str)
        return hashlib.blake2b(text.encode()).hexdigest()[:16]

    @property
    def numbers(self) -> dict[str, Tensor]:
        """The tensors that are compared, float32 on the CPU.

        They are copies: one prompt may be connected twice, and a file cannot share memory between
        tensors.
        """
        kinds = {"weights": self.weights, "prompts": self.prompts, "latents": self.latents}
        return {
            f"{kind}: {name}": tensor.detach().to("cpu", torch.float32, copy=True).contiguous()
            for kind, tensors in kinds.items()
            for name, tensor in tensors.items()
        }

    def find_folder(self, root: Path) -> Path:
        """Return the folder of these inputs under `root`, or the name of a new one."""
        numbers = self.numbers
        own = root / f"{self.key}-{digest(numbers)[:8]}"
        for path in (own, *sorted(root.glob(f"{self.key}-*"))):
            known = _read(path / _FILE)
            if known is None:
                continue
            other = _other(known, numbers)
            if other is None:
                return path
            logger.info("ZipLoRA: not resumed: %s has the same settings but other %s", path, other)
        return own

    def unreadable_folders(self, root: Path) -> list[Path]:
        """Return the folders of these exact inputs whose other inputs cannot be read."""
        return [path for path in root.glob(f"{self.key}-*") if _read(path / _FILE) is None]

    def remember(self, folder: Path) -> None:
        """Write the compared tensors into a folder, unless they can be read there already.

        Raises:
            OSError: the disk is full or not writable.
        """
        file = folder / _FILE
        if _read(file) is None:
            folder.mkdir(parents=True, exist_ok=True)
            write_bytes(file, safetensors.torch.save(self.numbers), replace=True)


def _read(file: Path) -> dict[str, Tensor] | None:
    """Read a folder's compared tensors; None when they are missing or unreadable."""
    try:
        return safetensors.torch.load_file(file)
    except (OSError, ValueError, SafetensorError):
        return None


def _other(known: Mapping[str, Tensor], numbers: Mapping[str, Tensor]) -> str | None:
    """Return the name of a tensor that differs by more than rounding, or None."""
    for name in sorted(known.keys() ^ numbers.keys()):
        return name
    for name, tensor in numbers.items():
        if not _same(name.split(":")[0], known[name], tensor):
            return name
    return None


def _same(kind: str, left: Tensor, right: Tensor) -> bool:
    if left.shape != right.shape:
        return False
    if kind == "weights":
        allowed = SAME_WEIGHT * torch.maximum(left.abs(), right.abs()) + TINY
        return bool(((left - right).abs() <= allowed).all())
    limit = SAME_PROMPT if kind == "prompts" else SAME_LATENT
    rows = (left - right).square().mean(-1).sqrt()
    return bool((rows <= limit * left.square().mean().sqrt() + TINY).all())


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Hash tensors by their bytes, for tensors that come unchanged from a file."""
    found = hashlib.blake2b()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        found.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


def picture_digest(picture: Tensor) -> str:
    """Hash a picture `(h, w, 3)` in 0…1 by its 8-bit pixels, as decoders differ below that."""
    return digest({"": (picture * 255).round().clamp(0, 255).to(torch.uint8)})


def sampled(tensor: Tensor, count: int = 64) -> Tensor:
    """Return about `count` evenly spaced values, enough to distinguish two checkpoints' weights.

    The stride is odd, as a multiple of the row length would sample a single column.
    """
    flat = tensor.detach().reshape(-1)
    return flat[:: max(1, len(flat) // count) | 1].float()
