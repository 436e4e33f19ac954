"""Many trainings, whose states are each as large as SDXL's, under the usual limits."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

from ziplora_core.training.about import About, write_about
from ziplora_core.training.checkpoint import CheckpointFolder
from ziplora_core.training.kept import STATES, Kept, in_use, look
from ziplora_core.training.limits import Limits, kept_within_limits

from .promise import Promise

GB = 10**9
ENDINGS = {
    "saved": About(steps=9, step=9, state="finished", parts=("",)),
    "unfinished": About(steps=9, step=4),
    "finished, not saved": About(steps=9, step=9, state="finished"),
}


def measured(trainings: int, root: Path, rng: random.Random) -> Promise:
    """Let trainings end in every way, one also by a kill, and look after each.

    Args:
        trainings: their number.
        root: an empty folder, in which the files have holes: they take no space.
        rng: source of sizes and endings.
    """
    usual, broken, most = Limits(), [], (0, 0)
    removed = 0
    for n in range(trainings):
        before = {k.path: k for k in look(root)}
        own = root / f"{n:04}"
        running = root / f"running{n:04}"
        with in_use(running):
            _write(running, "unfinished", rng)
            if n % 5 == 4:
                _killed_training(own, rng)
            with kept_within_limits(own, "trainings", []):
                _write(own, rng.choice([*ENDINGS]), rng)
            after = look(root)
            if not running.exists():
                broken.append(f"training {n}: a running one was removed")
        gone = [k for path, k in before.items() if not path.exists()]
        removed += len(gone)
        broken += [f"training {n}: {text}" for text in _wrong(after, gone, own, usual)]
        most = (max(most[0], len(after)), max(most[1], sum(k.bytes for k in after)))
    return Promise(
        "Checkpoints stay within their limits, and go in the stated order",
        trainings, trainings - len({text.split(":")[0] for text in broken}),
        f"limits {usual}: at most {most[0]} folders, {most[1] / GB:.2f} GB; {removed} removed",
        broken,
    )  # fmt: skip


def _write(folder: Path, state: str, rng: random.Random) -> None:
    """Write a training's folder with a state of 0.2 to 3 GB, which has a hole."""
    folder.mkdir(parents=True, exist_ok=True)
    with CheckpointFolder(folder).state_file.open("wb") as file:
        file.truncate(int(rng.uniform(0.2, 3) * GB))
    write_about(folder, ENDINGS[state])


def _killed_training(folder: Path, rng: random.Random) -> None:
    """Let a process train in a folder and kill it."""
    pid = os.fork()
    if not pid:
        with in_use(folder):
            _write(folder, "unfinished", rng)
            signal.pause()
        os._exit(1)
    while not (folder / "about.json").exists():
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _wrong(after: list[Kept], gone: list[Kept], own: Path, limits: Limits) -> list[str]:
    """Say what is beyond the limits, or was removed before something that can go sooner."""
    found = []
    if len(after) > limits.number:
        found.append(f"{len(after)} folders")
    if (size := sum(k.bytes for k in after)) > limits.gigabytes * GB:
        found.append(f"{size / GB:.2f} GB")
    free = [STATES.index(k.state) for k in after if not k.in_use and k.path != own]
    taken = [STATES.index(k.state) for k in gone if not k.in_use]
    if free and taken and max(taken) > min(free):
        found.append(f"{STATES[max(taken)]} was removed before {STATES[min(free)]}")
    return found
