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
        self.files: dict[str, int] = {}
        """The steps of files that were saved on the way, by their names."""

    def write(self) -> bool:
        """Write the record as the run is now; return False before anything was learned.

        Raises:
            OSError: the disk is full or not writable.
        """
        run, before = self.run, self.before
        if run.record is None and not run.errors:
            return False  # an earlier record of the same inputs says more
        resumed = run.record is not None and run.record.resumed_at > 0
        if before is not None and not resumed and run.snapshot()["step"] < before["step"]:
            return False  # so does that of a run that came further
        self._go_on(resumed)
        strips = run.strips()
        seconds = run.record.seconds if run.record else 0.0
        kept = self.before or {"files": [], "saved_at": {}}
        said = {
            **run.snapshot(), **self.said, "started": self.started, "ended": time.time(),
            "seconds": seconds, "resumes": run.resumes,
            "files": list(dict.fromkeys([*kept["files"], *self.files])),
            "saved_at": {**kept["saved_at"], **self.files},
        }  # fmt: skip
        self.folder.write(said, strips)
        return True

    def _go_on(self, resumed: bool) -> None:
        """Take the start from the record of a resumed run, and no pictures from any other."""
        if self.before is None:
            return
        if resumed:
            self.started = self.before["started"]
            return
        for step in self.before["samples"]:  # they are of another run
            (self.folder.path / f"{step}.jpg").unlink(missing_ok=True)
        self.before = {**self.before, "samples": [], "step": 0}
