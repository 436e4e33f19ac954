"""Faults while a node runs: every kind, in all trainings and the tools that draw, on two devices.

The runs are in processes of their own (`fault_runs`), two at a time, each with a small disk that
only it sees. The device beside the CPU is the pretend accelerator (tests/accelerator/pretend).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.paths import ROOT

from .promise import Promise

Outcome = dict[str, Any]
"""The fields of `fault_runs.Outcome`, and the device."""
TEXTS = {
    "model": "MODEL, CLIP and VAE stay bit-identical after a fault, without a hook, patch, changed "
    "forward or gradient left on them",
    "resume": "Queued again after a fault, a training ends in the LoRA of a run without it, "
    "bit for bit on the CPU",
    "said": "A node that goes on after a fault returns what it would have without it (up to 1e-5 "
    "where memory ran out and samples went one by one), or its report says what is different",
    "typed": "A node that ends by a fault passes on the cancel or the error itself, or says what "
    "to do",
    "temporary": "A fault that does not kill the process leaves no temporary file",
    "partial": "No file has its final name before it is complete, also after kill -9",
    "memory": "After a fault, no tensor of the run stays in memory",
}


@dataclass(frozen=True)
class Job:
    """Nodes to run on a device, and which faults: every n-th."""

    device: str
    nodes: Sequence[str]
    every: int = 1


SHORT = (Job("cpu", ("merge",), every=12),)
LONG = (
    Job("cpu", ("unzip", "pictures", "closed_form")),
    Job("cpu", ("merge", "dreambooth", "words", "find", "judge")),
    Job("pretend", ("merge", "closed_form", "dreambooth", "words", "pictures", "unzip"), every=3),
)


def measure(short: bool) -> list[Promise]:
    """Inject the faults and return a promise for each thing that is looked at afterwards."""
    jobs = [job for job in (SHORT if short else LONG) if job.device == "cpu" or _compiler()]
    with ThreadPoolExecutor(2) as pool:
        outcomes = [found for job in pool.map(_run, jobs) for found in job]
    return promises(outcomes)


def promises(outcomes: Sequence[Outcome]) -> list[Promise]:
    """Sum up the outcomes, a promise for each of `TEXTS` that was tried."""
    found = []
    for name, text in TEXTS.items():
        tried = [o for o in outcomes if name in o["broken"]]
        if not tried:
            continue
        broken = [o for o in tried if o["broken"][name]]
        lines = [
            f"{o['node']} on {o['device']}, {o['kind']} ({o['place']}): {o['broken'][name]}"
            for o in broken
        ]
        figures = _figures(name, tried)
        found.append(Promise(text, len(tried), len(tried) - len(broken), figures, lines))
    return found


def _figures(name: str, tried: Sequence[Outcome]) -> str:
    """Say how the tries of a promise are made up."""
    if name == "model":
        return f"{_counts(tried, 'node')}. {_counts(tried, 'device')}"
    if name == "resume":
        later = sum(o["resumed_at"] > 0 for o in tried)
        return f"{later} went on from a checkpoint, {len(tried) - later} began anew"
    if name == "partial":
        left = sum(o["left"] for o in tried)
        return f"{_counts(tried, 'kind')}. {left} temporary files after the kills"
    return _counts(tried, "ended") if name == "typed" else ""


def _counts(tried: Sequence[Outcome], what: str) -> str:
    return ", ".join(f"{name} {n}" for name, n in Counter(o[what] for o in tried).items())


def _run(job: Job) -> list[Outcome]:
    """Run a job in a process of its own and read its outcomes."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "outcomes.json")
        command = [*_own_mounts(), sys.executable, "-u", "-m", f"{__package__}.fault_runs"]
        command += [str(result), "--every", str(job.every), "--nodes", *job.nodes]
        environment = {**os.environ, "DEVICE": job.device, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, cwd=ROOT / "tests", env=environment, check=True)
        return [outcome | {"device": job.device} for outcome in json.loads(result.read_text())]


def _own_mounts() -> list[str]:
    """Return the command before a command that may mount a disk that only it sees."""
    alone = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else [])]
    if shutil.which("unshare") is None:
        return []
    return alone if subprocess.run([*alone, "true"], capture_output=True).returncode == 0 else []


def _compiler() -> bool:
    """Return whether the pretend accelerator can be built here."""
    return shutil.which("c++") is not None
