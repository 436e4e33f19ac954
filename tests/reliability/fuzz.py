"""What no input may do: raise an error that is not typed, take the memory, or take for ever."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from .fuzzing.loop import BASE, GROWTH, SECONDS, Counts, run
from .fuzzing.targets import TARGETS
from .promise import Promise

INPUTS = 1_000_000
"""Inputs of the full form, over all targets."""
SHORT_SECONDS = 2.5
"""Time of each target in the short form."""
_GUIDED = ("safetensors", "pickles", "metadata")
"""Targets whose inputs atheris chooses by coverage, in the full form."""
_GUIDED_SHARE = 0.2
_SEED = 1


def measure(short: bool) -> list[Promise]:
    """Read mutated inputs with every target.

    Args:
        short: a few seconds for each target, in place of INPUTS.
    """
    os.nice(0 if short else 15)
    return [_promise(name, _counted(name, short)) for name in TARGETS]


def _counted(name: str, short: bool) -> Counts:
    if short:
        return run(name, INPUTS, _SEED, SHORT_SECONDS)
    inputs = int(INPUTS * TARGETS[name].share)
    guided = int(inputs * _GUIDED_SHARE) if name in _GUIDED and _has_atheris() else 0
    counts = run(name, inputs - guided, _SEED)
    if guided:
        counts.add(_guided(name, guided))
    return counts


def _has_atheris() -> bool:
    return importlib.util.find_spec("atheris") is not None


def _guided(name: str, inputs: int) -> Counts:
    """Let atheris choose inputs, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "counts.json"
        command = [sys.executable, "-m", "reliability.fuzzing.guided", name, str(inputs)]
        tests = Path(__file__).resolve().parents[1]
        done = subprocess.run(
            [*command, str(_SEED), "3600", str(result)], cwd=tests, capture_output=True, text=True
        )
        said = json.loads(result.read_text()) if result.exists() else {}
    counts = Counts(**{**said, "faults": Counter(said.get("faults", {}))})
    if done.returncode:
        counts.fault(f"atheris ended with {done.returncode}", done.stderr[-500:].encode())
    return counts


def _promise(name: str, counts: Counts) -> Promise:
    broken = sum(counts.faults.values())
    largest = max(counts.largest, 0)
    return Promise(
        f"{name}: an input of any bytes is read or refused by name, within {SECONDS:g} s of one "
        f"processor, and {GROWTH} times its size and {BASE >> 20} MiB of memory",
        tried=counts.inputs,
        held=max(counts.inputs - broken, 0),
        figures=f"{counts.refused} refused; slowest {counts.slowest:.2f} s; most memory beyond "
        f"{GROWTH} times the input {largest / 2**20:.0f} MiB",
        broken=[f"{count} × {kind}" for kind, count in counts.faults.most_common()]
        + [example[:2000] for example in counts.examples],
    )
