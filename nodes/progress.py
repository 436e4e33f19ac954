"""How a training node shows itself while it runs: progress, points, samples, stop, save, cancel."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from typing import Any

import comfy.model_management
import comfy.utils
from comfy_api.latest import io
from PIL import Image
from protocol import BinaryEventTypes
from server import PromptServer
from torch import Tensor

from ..ziplora_core import runs
from ..ziplora_core.checkpoint import CheckpointFolder
from ..ziplora_core.comfy_adapter.save_now import NOT_SAVED
from ..ziplora_core.keeping import attempt
from ..ziplora_core.run_history import Run
from ..ziplora_core.trainable import TrainingRecord, Watch, remove_if_spent

logger = logging.getLogger(__name__)

EVENT = "ziplora.training"
_SECONDS = 1 / 3
"""Between two messages of ours; with ComfyUI's own two of a progress bar, nine in a second."""
_HEIGHT, _GAP = 384, 4
"""Pixels of sample pictures, and between them."""


def log_warnings(node: str, report: str) -> None:
    """Repeat the report's warnings in the log."""
    for line in report.splitlines():
        if line.startswith("WARNING"):
            logger.warning("%s: %s", node, line)


def progress_bar(total: int) -> Callable[[int, int], None]:
    """Make what is told how many of how many are done; raises when the person has cancelled."""
    bar = comfy.utils.ProgressBar(total)

    def on_progress(done: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, total)

    return on_progress


@contextmanager
def followed(node: type[io.ComfyNode], steps: int) -> Iterator[Watch]:
    """Register a node's training and yield what its loop tells and asks.

    The node makes its output inside: until it has, a training whose steps are done keeps its
    checkpoint, and queueing the same inputs goes on from there.

    Args:
        node: needs the hidden inputs `unique_id` and `extra_pnginfo`.
        steps: of the whole training.
    """
    run = Run(str(node.hidden.unique_id), steps, _workflow_id(node.hidden.extra_pnginfo))
    progress = TrainingProgress(run)
    trained: list[tuple[CheckpointFolder, TrainingRecord]] = []

    def keep(folder: CheckpointFolder, record: TrainingRecord) -> None:
        trained.append((folder, record))

    try:
        with runs.registered(run):
            yield replace(progress.watch(), on_trained=keep)
    except BaseException:
        for folder, _ in trained:
            folder.say_kept()
        raise
    finally:
        attempt("telling the page how it has ended", progress.tell, [], None)
    for folder, record in trained:
        remove_if_spent(folder, record)


class TrainingProgress:
    """Told by the loop what happens; raises when the person has cancelled.

    It goes to every open page, a third of a second apart at most: a page that shows another
    workflow leaves it out.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        # Two: a bar that has been further holds back what is said of the steps before that.
        self._preparing, self._bar = (comfy.utils.ProgressBar(run.steps) for _ in range(2))
        self._told, self._sent = 0.0, 0

    def watch(self) -> Watch:
        """What the loop calls."""
        return Watch(
            on_step=self.step,
            should_stop=self.run.take_stop,
            should_save=self.run.take_save,
            on_prepare=self.prepare,
            on_status=self.status,
            on_samples=self.samples,
            on_solved=self.solved,
            on_saved=self.saved,
        )

    def step(self, record: TrainingRecord) -> None:
        """Called after every step."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        self.run.update(record)
        last = record.step == self.run.steps or record.stopped is not None
        if last and (record.stopped or not self.run.status.startswith("WARNING")):
            self.run.status = record.stopped or ""  # and no longer what memory it would need
        if last or self._is_due():
            self._bar.update_absolute(record.step, self.run.steps)
            self.tell()

    def prepare(self, done: int, total: int) -> None:
        """Called while pictures are drawn, before the first step."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        self.run.prepared = (done, total)
        if done == total or self._is_due():
            self._preparing.update_absolute(done, total)
            self.tell()

    def status(self, text: str) -> None:
        """Show on the node what is going on, and what memory it will need."""
        self.run.status = text
        self.tell()

    def samples(self, step: int, pictures: Sequence[Tensor]) -> None:
        """Show these pictures on the panel, and as a preview of whoever has queued the run.

        One that names its node, as a progress bar's, would be drawn below the panel once more.
        """
        picture = side_by_side(pictures)
        server = PromptServer.instance
        preview = ("JPEG", picture, None)
        server.send_sync(BinaryEventTypes.UNENCODED_PREVIEW_IMAGE, preview, server.client_id)
        file = BytesIO()
        picture.save(file, "JPEG", quality=88)
        self.run.add_picture(step, file.getvalue())

    def solved(self, errors: Sequence[float]) -> None:
        """Show how well each pass of the closed form has done."""
        self.run.errors = list(errors)
        self.tell()

    def saved(self, files: Sequence[str]) -> None:
        """Say where the LoRA so far is, or its parts are."""
        self.run.saved = list(files)
        if self.run.status.startswith(NOT_SAVED):
            self.run.status = ""
        self.tell()

    def tell(self) -> None:
        """Send what is new to every open page."""
        self._told = time.perf_counter()
        self.run.tick()
        message = self.run.snapshot(after=self._sent)
        self._sent = self.run.last()
        PromptServer.instance.send_sync(EVENT, message | {"memory": used_memory()})

    def _is_due(self) -> bool:
        return time.perf_counter() - self._told >= _SECONDS


def _workflow_id(pnginfo: Any) -> str:
    """The id of the workflow that was queued; empty where only a prompt was, by a program."""
    workflow = pnginfo.get("workflow") if isinstance(pnginfo, dict) else None
    return str(workflow.get("id", "")) if isinstance(workflow, dict) else ""


def used_memory() -> list[int]:
    """Bytes in use on the device that trains, and all it has."""
    device: Any = comfy.model_management.get_torch_device()
    total: Any = comfy.model_management.get_total_memory(device)
    free: Any = comfy.model_management.get_free_memory(device)
    return [int(total - free), int(total)]


def side_by_side(pictures: Sequence[Tensor]) -> Image.Image:
    """Put pictures `(h, w, 3)` in 0…1 beside each other, no higher than a preview is shown."""
    shown = [Image.fromarray((p * 255).round().byte().cpu().numpy()) for p in pictures]
    height = min(_HEIGHT, max(p.height for p in shown))
    shown = [p.resize((max(1, round(p.width * height / p.height)), height)) for p in shown]
    row = Image.new("RGB", (sum(p.width + _GAP for p in shown) - _GAP, height))
    left = 0
    for picture in shown:
        row.paste(picture, (left, 0))
        left += picture.width + _GAP
    return row
