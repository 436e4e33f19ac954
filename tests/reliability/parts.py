"""The parts, each of which measures some promises in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from sandbox.paths import ROOT

from .promise import Promise

SHORT_MINUTES = 10.0
"""Time limit of a part's short form, which takes some tens of seconds where nothing else runs."""
SHOWN = 3000
"""Number of characters shown from the end of a part's output, when it fails."""


@dataclass(frozen=True)
class Part:
    """A module of this folder with the function `measure(short)`.

    Args:
        name: name of the module.
        title: what it measures, a heading of the document.
        minutes: time limit of its long form.
    """

    name: str
    title: str
    minutes: float


LIST = (
    Part("faults", "Faults while a training runs", 120),
    Part("leaks", "Connections, memory and files of a running server", 30),
    Part("checkpoints", "Checkpoints and finished trainings", 30),
    Part("disk", "Files on the disk", 30),
    Part("fuzz", "Fuzzing", 120),
    Part("others", "Beside other nodes and options", 60),
    Part("versions", "Versions of ComfyUI, Python and the frontend", 120),
)


def known() -> dict[str, Part]:
    """Return the parts that have a module, by name."""
    return {p.name: p for p in LIST if find_spec(f"{__package__}.{p.name}")}


@dataclass(frozen=True)
class Measured:
    """The promises of a part, and how long it took in seconds."""

    promises: list[Promise]
    seconds: float


def measure(part: Part, short: bool) -> Measured:
    """Measure a part in a process of its own; an end without a result is a broken promise."""
    started = time.monotonic()
    minutes = SHORT_MINUTES if short else part.minutes
    with tempfile.TemporaryDirectory() as folder:
        result, output = Path(folder, "promises.json"), Path(folder, "output.txt")
        command = [sys.executable, "-m", f"{__package__}.measure", part.name, str(result)]
        with output.open("wb") as log:
            ended = _run([*command, *(["--short"] if short else [])], log, 60 * minutes)
        seconds = time.monotonic() - started
        if ended == 0:
            return Measured([Promise(**p) for p in json.loads(result.read_text())], seconds)
        said = output.read_text(errors="replace")[-SHOWN:]
    how = f"ended with {ended}" if ended is not None else f"was not done in {minutes:g} minutes"
    broken = [f"{part.name} {how}: {said}"]
    return Measured([Promise(f"{part.title}: measured to the end", 1, 0, broken=broken)], seconds)


def _run(command: list[str], log: IO[bytes], seconds: float) -> int | None:
    """Run a command in a group of its own; return its exit status, None if it took too long."""
    running = subprocess.Popen(
        command, cwd=ROOT / "tests", stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        return running.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)  # what it started, such as a server
        running.wait()
