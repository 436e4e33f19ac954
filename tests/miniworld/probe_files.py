"""The trained probes as a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file

from .checkpoint import WEIGHTS, read
from .probes import STYLE, SUBJECT, Probe

PROBES = WEIGHTS / "probes.safetensors"
FACTORS = {"subject": SUBJECT, "style": STYLE}


def save_probes(probes: Mapping[str, Probe], path: Path = PROBES) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{name}.{key}": tensor.half().contiguous()
        for name, probe in probes.items()
        for key, tensor in probe.state_dict().items()
    }
    save_file(tensors, path)


def load_probes(path: Path = PROBES) -> dict[str, Probe]:
    """Load both probes.

    Raises:
        MiniWorldError: the file is missing or damaged.
    """
    tensors = read(path)
    probes = {}
    for name, factors in FACTORS.items():
        probes[name] = Probe(factors)
        own = {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(name)}
        probes[name].load_state_dict(own)
    return probes
