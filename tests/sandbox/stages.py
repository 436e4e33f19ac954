"""Set-up stages that leave a stamp when done, so an interrupted set-up resumes."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from .commands import say


@dataclass(frozen=True)
class Stage:
    """One step of the set-up.

    Args:
        key: everything the result depends on; a changed key runs the stage again.
        result: a path that exists once the stage is done.
    """

    name: str
    description: str
    key: str
    result: Path
    run: Callable[[], None]


def run_stages(stages: Iterable[Stage], stamps: Path) -> None:
    """Run the first stage not done yet and all after it."""
    stamps.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    ran = False
    for stage in stages:
        digest.update(stage.key.encode())
        stamp = stamps / stage.name
        done = stamp.is_file() and stamp.read_text() == digest.hexdigest()
        if done and stage.result.exists() and not ran:
            continue
        ran = True
        stamp.unlink(missing_ok=True)
        start = time.monotonic()
        say(f"{stage.description} …")
        stage.run()
        stamp.write_text(digest.hexdigest())
        say(f"  done in {time.monotonic() - start:.0f} s")
