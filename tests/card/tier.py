"""Runs the accelerator tier in a process of its own, with this Python's packages."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec

from sandbox.commands import say
from sandbox.paths import BASE, COMFYUI_PYTHON, PYTHON, ROOT, VENV

SERVER = "tests/server"
GRACE = 30.0
"""Seconds for the tests to end after an interrupt."""
SHOWN = 4000
"""Number of characters from the end of its output."""


@dataclass(frozen=True)
class Tier:
    """The outcome of the tier: a description, and whether anything failed."""

    said: str
    failed: bool = False


def run_tier(minutes: float) -> Tier:
    """Run the files that TIER names; those of the server only if the sandbox is set up.

    Args:
        minutes: time limit.
    """
    if find_spec("pytest") is None:
        return Tier("not run, as this Python has no pytest")
    files = os.environ["TIER"].split()
    made_for = VENV / "made_for"  # the Python that the server's environment lies over
    own = made_for.is_file() and made_for.read_text() == str(COMFYUI_PYTHON)
    whole = own and PYTHON.is_file() and BASE.is_dir()
    command = [sys.executable, "-c", "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"]
    command += ["-q", *(file for file in files if whole or not file.startswith(SERVER))]
    if find_spec("xdist"):
        command += ["-n", "2", "--dist", "loadfile"]
    running = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    stopped = ""
    try:
        output, _ = running.communicate(timeout=60 * minutes)
    except subprocess.TimeoutExpired:
        running.send_signal(signal.SIGINT)  # it ends its servers and prints its results
        try:
            output, _ = running.communicate(timeout=GRACE)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            output, _ = running.communicate()
        stopped = f", stopped after {minutes:g} minutes"
    say(output[-SHOWN:])
    last = (output.strip().splitlines() or [f"ended with {running.returncode}"])[-1].strip("= ")
    failed = " failed" in last or " error" in last if stopped else running.returncode != 0
    left_out = (
        "" if whole else f" ({SERVER} was left out: run `make setup` with the same COMFYUI_PYTHON)"
    )
    return Tier(last + stopped + left_out, failed)
