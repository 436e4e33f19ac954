"""The record of a run that is under way; see records.py."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from .records import RecordFolder
from .run_history import Run


class RunRecord:
    """Keeps the record of one run up to date.

    Args:
        folder: the record's folder.
        run: the run.
        said: what is known of it before its first step: `method`, `title`, `key`, `settings`.
    """

    def __init__(self, folder: RecordFolder, run: Run, said: Mapping[str, Any]) -> None:
        self.folder, self.run, self.said = folder, run, said
        self.started = time.time()
        self.before = folder.read()
        self.files: list[str] = []
        """Names of files that were saved on the way."""

    def write(self) -> bool:
        """Write the record as the run is now; return False before anything was learned.

        Raises:
            OSError: the disk is full or not writable.
        """
        run = self.run
        if run.record is None and not run.errors:
            return False  # an earlier record of the same inputs says more
        self._go_on()
        strips = run.strips()
        seconds = run.record.seconds if run.record else 0.0
        files = [] if self.before is None else self.before["files"]
        said = {
            **run.snapshot(), **self.said, "started": self.started, "ended": time.time(),
            "seconds": seconds, "resumes": run.resumes,
            "files": list(dict.fromkeys([*files, *self.files])),
        }  # fmt: skip
        self.folder.write(said, strips)
        return True

    def _go_on(self) -> None:
        """Take the start and the files from the record of a resumed run; drop any other."""
        before, record = self.before, self.run.record
        if before is None or record is None:
            return
        if record.resumed_at:
            self.started = before["started"]
        else:  # its pictures are of another run
            for step in before["samples"]:
                (self.folder.path / f"{step}.jpg").unlink(missing_ok=True)
            self.before = None
