"""Checkpoints of one run: written, resumed, and kept when the run is cut short."""

from __future__ import annotations

import logging
import time

import torch

from .checkpoint import CheckpointFolder, FoundState
from .interface import LoopCallbacks, TrainingRecord, TrainingTask
from .optimisers import state_layout
from .out_of_memory import is_out_of_memory
from .protection import attempt
from .saved_state import Layout, SavedState, check_fit

logger = logging.getLogger(__name__)

_PAUSE = 20
"""Least pause between checkpoints, in write times of the last one (1 GB on SDXL at rank 64)."""


class RunCheckpoints:
    """The checkpoints of one run.

    Args:
        folder: their folder; None for a run without checkpoints.
        task: the parameters and the extra state.
        optimiser: the optimiser, whose state goes along.
        record: the record of the run, which a resumed run continues.
        steps: number of steps of the whole training.
        callbacks: for the LoRA so far.
    """

    def __init__(
        self,
        folder: CheckpointFolder | None,
        task: TrainingTask,
        optimiser: torch.optim.Optimizer,
        record: TrainingRecord,
        steps: int,
        callbacks: LoopCallbacks,
    ) -> None:
        self.folder, self.task, self.optimiser = folder, task, optimiser
        self.record, self.steps, self.callbacks = record, steps, callbacks
        self.planned_low = task.low_memory
        self.next = 0.0  # when the next one may be written
        self.written: tuple[int, bool] | None = None  # the last one's step, and whether it failed
        self.versions: list[int] | None = None  # of all tensors, before an update that is under way

    def resume(self) -> bool:
        """Load a checkpoint of the same inputs; return whether there is one.

        Nothing is changed before all of it is known to fit.
        """
        found = FoundState() if self.folder is None else self.folder.load(self._check)
        state, record = found.state, self.record
        if state is None:
            record.notes += found.notes
            return False
        with torch.no_grad():
            for parameter, saved in zip(self.task.parameters, state.parameters, strict=True):
                parameter.copy_(saved)
        if not state.has_ended:
            groups = self.optimiser.state_dict()["param_groups"]  # as on this device
            self.optimiser.load_state_dict({"state": state.optimiser, "param_groups": groups})
        self.task.load_extra_state(state.extra_state)
        record.step = record.resumed_at = state.step
        record.history = {name: [*values] for name, values in state.history.items()}
        record.seconds = state.seconds
        record.notes += [*state.notes, *found.notes]
        if state.low_memory:
            self.task.save_memory()
        record.failed, record.stopped = state.failed, state.ended or None
        self.written = (state.step, state.failed)
        logger.info(
            "ZipLoRA: resumed at step %d from %s", state.step, self.folder and self.folder.path
        )
        return True

    def _check(self, state: SavedState) -> None:
        """Check that the run can go on from a state; see `check_fit`."""
        layouts = {} if state.has_ended else self._optimiser_layouts()
        extra = self.task.extra_layout(state.step)
        check_fit(state, self.steps, self.task.parameters, extra, layouts)

    def _optimiser_layouts(self) -> dict[int, dict[str, Layout | type]]:
        kept = {n: state_layout(self.optimiser, n) for n in range(len(self.task.parameters))}
        return {number: layout for number, layout in kept.items() if layout}

    def write(self) -> bool:
        """Write a checkpoint unless it exists; return whether there is one of this step.

        A full disk or memory does not end the run: it is noted and logged, and training goes on.
        """
        if self.folder is None or self.record.step == 0:
            return False
        now = (self.record.step, self.record.failed)
        if self.written == now or (self._is_torn() and self._goes_without()):
            return True
        try:
            self.folder.save(self._state())
        except (OSError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not is_out_of_memory(error):
                raise
            self.record.notes.append(f"no checkpoint at step {self.record.step}: {error}")
            logger.warning("ZipLoRA: %s", self.record.notes[-1])
            return False
        self.written = now
        return True

    def begin_update(self) -> None:
        """Remember the parameters and the optimiser's state, by PyTorch's counts of changes."""
        self.versions = self._versions()

    def end_update(self) -> None:
        """Note that an update is done as a whole, or taken back."""
        self.versions = None

    def _versions(self) -> list[int]:
        state = [v for kept in self.optimiser.state.values() for v in kept.values()]
        return [t._version for t in (*self.task.parameters, *state) if isinstance(t, torch.Tensor)]

    def _is_torn(self) -> bool:
        """Return whether an update has failed after it had changed something."""
        return self.versions is not None and self.versions != self._versions()

    def _goes_without(self) -> bool:
        """Note an update that failed halfway; return whether there is an earlier checkpoint.

        A run that goes on from such a state learns something else, so the earlier one stays.
        Without one, that is still better than to begin anew.
        """
        kept = "is kept" if self.written else "is not there: what follows may differ a little"
        self.record.notes.append(
            f"WARNING: the update of step {self.record.step + 1} failed halfway; "
            f"the state before it {kept}"
        )
        return self.written is not None

    def write_in_time(self) -> None:
        """Write a checkpoint, unless checkpoints would take more than a twentieth of the time."""
        started = time.perf_counter()
        if started >= self.next and self.write():
            ended = time.perf_counter()
            self.next = ended + _PAUSE * (ended - started)

    def keep(self) -> None:
        """Write a checkpoint and the current LoRA, and log their paths.

        Errors in here are noted and logged; they do not replace the original exception.
        """
        folder, notes = self.folder, self.record.notes
        if folder is None:
            return
        if not attempt("writing the checkpoint", self.write, notes, False):
            folder.say_kept()  # an earlier one
            return
        attempt("writing the LoRA so far", lambda: self._save_loras(folder), notes, None)
        written = folder.lora_file if folder.lora_file.exists() else "none"
        logger.info(
            "ZipLoRA: step %d kept in %s; queue the same inputs to go on. LoRA so far: %s",
            self.written[0] if self.written else self.record.step, folder.path, written,
        )  # fmt: skip

    def _save_loras(self, folder: CheckpointFolder) -> None:
        loras = {"lora": self.callbacks.export(self.record), **self.callbacks.parts(self.record)}
        for name, lora in loras.items():
            folder.save_lora(lora, name)

    def _state(self) -> SavedState:
        """Collect everything that a resumed run needs."""
        record = self.record
        ended = "" if record.asked_to_stop else record.stopped or ""
        going = not ended and record.step < self.steps
        return SavedState(
            parameters=self.task.parameters,
            extra_state=self.task.extra_state,
            history=record.history,
            step=record.step,
            steps=self.steps,
            optimiser=self.optimiser.state_dict()["state"] if going else {},
            seconds=record.seconds,
            notes=record.notes,
            low_memory=self.task.low_memory and not self.planned_low,  # since memory ran out
            ended=ended,
            failed=record.failed,
        )
