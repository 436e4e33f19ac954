"""Checkpoints of one run: written, resumed, and kept when the run is cut short."""

from __future__ import annotations

import logging
import time
from typing import Any

import torch

from .checkpoint import CheckpointFolder
from .interface import LoopCallbacks, TrainingRecord, TrainingTask
from .out_of_memory import is_out_of_memory
from .protection import attempt

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
        callbacks: for the LoRA so far.
    """

    def __init__(
        self,
        folder: CheckpointFolder | None,
        task: TrainingTask,
        optimiser: torch.optim.Optimizer,
        record: TrainingRecord,
        callbacks: LoopCallbacks,
    ) -> None:
        self.folder, self.task, self.optimiser = folder, task, optimiser
        self.record, self.callbacks = record, callbacks
        self.planned_low = task.low_memory
        self.next = 0.0  # when the next one may be written
        self.written: tuple[int, bool] | None = None  # the last one's step, and whether it failed
        self.versions: list[int] | None = None  # of all tensors, before an update that is under way

    def resume(self) -> bool:
        """Load a checkpoint of the same inputs; return whether there is one."""
        state = self.folder.load() if self.folder else None
        if state is None:
            return False
        with torch.no_grad():
            for parameter, saved in zip(self.task.parameters, state["parameters"], strict=True):
                parameter.copy_(saved)
        saved_groups = state["optimiser"]["param_groups"]
        for group, own in zip(saved_groups, self.optimiser.param_groups, strict=True):
            if "fused" in group:  # as on this device, not as where it was saved
                group["fused"] = own["fused"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.task.load_extra_state(state["extra_state"])
        self.record.step = self.record.resumed_at = state["step"]
        self.record.history = state["history"]
        self.record.seconds = state["seconds"]
        self.record.notes = state["notes"]
        if state["low_memory"]:
            self.task.save_memory()
        self.written = (state["step"], bool(state["failed"]))
        if state["failed"]:
            self.record.failed, self.record.stopped = True, state["failed"]
        logger.info("ZipLoRA: resumed at step %d from %s", state["step"], self.folder)
        return True

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

    def _state(self) -> dict[str, Any]:
        """Copy everything that a resumed run needs."""
        return {
            "parameters": [p.detach().cpu() for p in self.task.parameters],
            "optimiser": self.optimiser.state_dict(),
            "extra_state": dict(self.task.extra_state),
            "step": self.record.step,
            "history": self.record.history,
            "seconds": self.record.seconds,
            "notes": self.record.notes,
            "low_memory": self.task.low_memory and not self.planned_low,  # since memory ran out
            "failed": self.record.stopped if self.record.failed else "",
        }
