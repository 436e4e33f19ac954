"""The accelerator tier in a process of its own, on this Python's packages."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec

from sandbox.commands import say
from sandbox.paths import BASE, PYTHON, ROOT

SERVER = "tests/server"
SHOWN = 4000
"""Characters of its output, the last ones."""


@dataclass(frozen=True)
class Tier:
    """How it has ended: in words, and whether anything failed."""

    said: str
    failed: bool = False


def run_tier(minutes: float) -> Tier:
    """Run the files that TIER names; those of the server only in a sandbox that is set up.

    Args:
        minutes: it is stopped after them.
    """
    if find_spec("pytest") is None:
        return Tier("not run, as this Python has no pytest")
    files = os.environ["TIER"].split()
    whole = PYTHON.is_file() and BASE.is_dir()
    command = [sys.executable, "-c", "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"]
    command += ["-q", *(file for file in files if whole or not file.startswith(SERVER))]
    if find_spec("xdist"):
        command += ["-n", "2", "--dist", "loadfile"]
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    stopped = ""
    try:
        output, _ = running.communicate(timeout=60 * minutes)
    except subprocess.TimeoutExpired:
        running.send_signal(signal.SIGINT)  # it ends its servers, and says what it has found
        output, _ = running.communicate()
        stopped = f", stopped after {minutes:g} minutes"
    say(output[-SHOWN:])
    last = (output.strip().splitlines() or [f"ended with {running.returncode}"])[-1].strip("= ")
    failed = " failed" in last or " error" in last if stopped else running.returncode != 0
    left_out = "" if whole else f" ({SERVER} was left out: `make setup` was not run)"
    return Tier(last + stopped + left_out, failed)
