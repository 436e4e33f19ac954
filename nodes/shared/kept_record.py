"""The record of a running training on disk, with the limits of all records."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType

from ...ziplora_core.training.checkpoint import CheckpointFolder
from ...ziplora_core.training.kept import in_use
from ...ziplora_core.training.limits import make_room
from ...ziplora_core.training.protection import attempt
from ...ziplora_core.training.records import RecordFolder
from ...ziplora_core.training.run_history import Run
from ...ziplora_core.training.run_record import RunRecord
from .queued import Queued

_PAUSE = 60
"""Seconds between two writes while no sample is drawn."""


class KeptRecord:
    """Keeps a run's record from its first step to its end; a failure of it goes no further.

    Args:
        run: the run.
        queued: its node.
    """

    def __init__(self, run: Run, queued: Queued) -> None:
        self.run, self.queued = run, queued
        self._record: RunRecord | None = None
        self._written, self._asked = 0.0, False
        self._mark = ExitStack()
        self._failures: list[str] = []
        """The line on a record that cannot be written, which is said once."""

    def __enter__(self) -> KeptRecord:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.write()
        self._mark.close()
        if record := self._record:
            own = record.folder.path
            self._try(lambda: make_room(own.parent, own))

    def begin(self, folder: CheckpointFolder, resumes: bool) -> None:
        """Find the record of a training, once its checkpoint's folder is known."""
        self.run.folder, self.run.resumes = folder.path.name, resumes and self.run.steps > 0
        record = RecordFolder.beside(folder.path)
        self._mark.enter_context(in_use(record.path))
        said = {
            "method": folder.method, "title": folder.title, "key": self.queued.key,
            "settings": self.queued.settings(),
        }  # fmt: skip
        self._record = RunRecord(record, self.run, said)
        self._written = time.monotonic()

    def write(self) -> None:
        """Write the record as the run is now."""
        if record := self._record:
            self._written = time.monotonic()
            self._try(lambda: self._write(record))

    def _write(self, record: RunRecord) -> None:
        if record.write() and not self._asked and self.queued.prompt:
            record.folder.write_request(self.queued.as_sent(), self.queued.workflow)
            self._asked = True

    def write_in_time(self) -> None:
        """Write it unless that was done within the last minute."""
        if time.monotonic() - self._written >= _PAUSE:
            self.write()

    def add_files(self, names: Sequence[str], step: int) -> None:
        """Note files that were saved on the way, after a step."""
        if self._record:
            self._record.files |= dict.fromkeys(names, step)

    def _try(self, write: Callable[[], object]) -> None:
        attempt("keeping the record of the training", write, self._failures, None)
