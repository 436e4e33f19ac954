"""What a training's result depends on, and where the checkpoint of the same inputs is.

Another card, driver or dtype makes slightly other numbers of the same inputs, and is to find the
same checkpoint. So what is exact goes into a hash: settings, texts, pictures in eight bits, factors
of LoRA files. What a device has rounded or computed is kept beside the checkpoint and compared; a
hash of rounded numbers would change wherever one of them lies at the edge between two.
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

from .files.atomic import write_bytes

logger = logging.getLogger(__name__)

VERSION = 4
"""Of what a run does with its inputs; another version does not resume this one's checkpoints."""
WITHOUT_EFFECT = frozenset(
    (
        *("resume", "checkpoint_every", "held_out_draws", "sample_every", "sample_prompts"),
        *("images_per_validation", "saves_per_validation", "validation_steps"),
        *("range", "start_percent", "memory", "early_stop"),
    )
)
"""Settings and options that a result does not depend on, of all trainers; for `early_stop` see
`counted`. `memory` changes the order of sums, as another card does: no more than their rounding."""
SAME_WEIGHT, TINY = 2.0**-8, 2.0**-24
"""Relative difference of a weight up to which it counts as rounded to fp16 or bf16; TINY is for the
smallest ones in fp16. All weights sampled have to agree: where one checkpoint was trained on from
the other, some of those near 0 do not."""
SAME_PROMPT = 0.01
"""Difference (rms) of a token, relative to the rms of all, up to which it counts as rounding.
ComfyUI's text encoders compute in float32 on every device; bf16 is exact to 0.002. (dog:1.05)
changes a token by 0.05 of what its word makes of it."""
SAME_LATENT = 0.05
"""The same of a row of a picture's latents: VAEs also compute in bf16, or in tiles. Another picture
differs by more than 1, a spot in it that is two latents wide by 0.1 of the rows it is in."""
_FILE = "inputs.numbers"


def counted(settings: Any, stops_early: bool = False) -> dict[str, Any]:
    """Name those of a node's settings that its result depends on.

    Those that count only sometimes, as a penalty's form where its weight is 0, are among them: at
    worst a training starts anew.

    Args:
        settings: one of `options`.
        stops_early: whether the method has a rule to stop by; elsewhere `early_stop` does nothing.
    """
    without = WITHOUT_EFFECT - ({"early_stop"} if stops_early else set())
    said = asdict(settings)
    said["options"] = {k: value for k, value in said["options"].items() if k not in without}
    known = {k: value for k, value in said.items() if k not in without}
    return {"method": type(settings).__name__, **known}


@dataclass(frozen=True)
class Inputs:
    """All that a result depends on.

    Args:
        said: what is exact, as JSON has it.
        weights: numbers as they were loaded, maybe rounded to another dtype.
        prompts: what text encoders made; the last axis is a token's.
        latents: what a VAE made of pictures, `(…, h, w)`.
    """

    said: Mapping[str, Any]
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    prompts: Mapping[str, Tensor] = field(default_factory=dict)
    latents: Mapping[str, Tensor] = field(default_factory=dict)

    def __or__(self, other: Inputs) -> Inputs:
        return Inputs(
            {**self.said, **other.said},
            {**self.weights, **other.weights},
            {**self.prompts, **other.prompts},
            {**self.latents, **other.latents},
        )

    @property
    def key(self) -> str:
        """Hash of what is exact."""
        text = json.dumps([VERSION, self.said], sort_keys=True, default=str)
        return hashlib.blake2b(text.encode()).hexdigest()[:16]

    @property
    def numbers(self) -> dict[str, Tensor]:
        """What is compared, float32 on the CPU; copied, as one prompt may be connected twice and a
        file holds no tensor twice."""
        kinds = {"weights": self.weights, "prompts": self.prompts, "latents": self.latents}
        return {
            f"{kind}: {name}": tensor.detach().to("cpu", torch.float32, copy=True).contiguous()
            for kind, tensors in kinds.items()
            for name, tensor in tensors.items()
        }

    def find_folder(self, root: Path) -> Path:
        """Find the folder under `root` that is of these inputs, or name one for them."""
        numbers = self.numbers
        own = root / f"{self.key}-{digest(numbers)[:8]}"
        for path in (own, *sorted(root.glob(f"{self.key}-*"))):
            known = _read(path / _FILE)
            if known is None:
                continue
            other = _other(known, numbers)
            if other is None:
                return path
            logger.info("ZipLoRA: not resumed: %s has the same settings, other %s", path, other)
        return own

    def remember(self, folder: Path) -> None:
        """Write into a folder what it is of, unless it says so already.

        Raises:
            OSError: the disk is full or not writable.
        """
        file = folder / _FILE
        if not file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_bytes(file, safetensors.torch.save(self.numbers), replace=True)


def _read(file: Path) -> dict[str, Tensor] | None:
    """Read what a folder is of; None when it does not say, or nobody can read it."""
    try:
        return safetensors.torch.load_file(file)
    except (OSError, ValueError, SafetensorError):
        return None


def _other(known: Mapping[str, Tensor], numbers: Mapping[str, Tensor]) -> str | None:
    """Name what differs by more than rounding; None when nothing does."""
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
    """Hash tensors by their bytes: those that come as they are from a file."""
    found = hashlib.blake2b()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        found.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


def picture_digest(picture: Tensor) -> str:
    """Hash a picture `(h, w, 3)` in 0…1 by its pixels in eight bits: decoders differ below that."""
    return digest({"": (picture * 255).round().clamp(0, 255).to(torch.uint8)})


def sampled(tensor: Tensor, count: int = 64) -> Tensor:
    """Take about `count` evenly spaced values: enough to tell two checkpoints' weights apart.

    The stride is odd: a multiple of the row length would see one column only.
    """
    flat = tensor.detach().reshape(-1)
    return flat[:: max(1, len(flat) // count) | 1].float()
