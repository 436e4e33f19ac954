"""Progress of a running training node: loss points, sample images, stop, save and cancel."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence, Set
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

from ...ziplora_core.comfy_adapter.train.save_now import NOT_SAVED
from ...ziplora_core.training import registry
from ...ziplora_core.training.checkpoint import CheckpointFolder
from ...ziplora_core.training.interface import ProgressCallbacks, TrainingRecord
from ...ziplora_core.training.protection import attempt
from ...ziplora_core.training.run_history import Run
from ...ziplora_core.training.sample_strips import Strip, keep_strips, read_strips
from .kept_record import KeptRecord
from .queued import Queued

logger = logging.getLogger(__name__)

EVENT = "ziplora.training"
_SECONDS = 1 / 3
"""Least time between two messages. Together with ComfyUI's own two for a progress bar, that is nine
messages per second."""
_HEIGHT, _GAP = 384, 4
"""Height of sample images and the gap between them, in pixels."""


def log_warnings(node: str, report: str) -> None:
    """Write the report's warnings to the log."""
    for line in report.splitlines():
        if line.startswith("WARNING"):
            logger.warning("%s: %s", node, line)


def progress_bar(total: int) -> Callable[[int, int], None]:
    """Make a callback `(done, total)` that moves the bar and raises when the user has cancelled."""
    bar = comfy.utils.ProgressBar(total)

    def on_progress(done: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, total)

    return on_progress


@contextmanager
def followed(
    node: type[io.ComfyNode], steps: int, saves: bool = True
) -> Iterator[ProgressCallbacks]:
    """Register a node's training and yield the callbacks for its loop.

    The node must create its output inside the context: when that fails, the log says where the
    state of the training is kept.

    Args:
        node: needs the hidden inputs `unique_id` and `extra_pnginfo`, and `prompt` if it trains.
        steps: number of steps of the whole training.
        saves: whether its steps make a LoRA that can be saved on the way.
    """
    queued = Queued.of(node)
    run = Run(queued.node_id, steps, queued.workflow_id, saves, queued.kind, queued.title())
    record = KeptRecord(run, queued)
    progress = TrainingProgress(run, record)
    trained: list[CheckpointFolder] = []

    def keep(folder: CheckpointFolder, record: TrainingRecord) -> None:
        trained.append(folder)

    try:
        with record, registry.registered(run):
            yield replace(progress.callbacks(), on_trained=keep, name=queued.file_name())
    except BaseException:
        for folder in trained:
            folder.say_kept()
        raise
    finally:
        attempt("keeping the sample images", progress.keep_samples, [], None)
        attempt("telling the page how the training ended", progress.tell, [], None)


class TrainingProgress:
    """Receives the events of a training loop; raises when the user has cancelled.

    Messages go to every open page, at most one per third of a second. A page that shows another
    workflow ignores them.
    """

    def __init__(self, run: Run, record: KeptRecord) -> None:
        self.run, self.record = run, record
        # Two bars: ComfyUI's throttle drops values below the last one that a bar has sent.
        self._preparing, self._bar = (comfy.utils.ProgressBar(run.steps) for _ in range(2))
        self._told, self._sent = 0.0, 0
        self._folder: CheckpointFolder | None = None
        self._kept: Set[int] = frozenset()

    def callbacks(self) -> ProgressCallbacks:
        """The callbacks for the loop."""
        return ProgressCallbacks(
            on_step=self.step,
            should_stop=self.run.take_stop,
            should_save=self.run.take_save,
            on_prepare=self.prepare,
            on_status=self.status,
            on_start=self.start,
            on_samples=self.samples,
            on_solved=self.solved,
            on_saved=self.saved,
        )

    def start(self, folder: CheckpointFolder, record: TrainingRecord, resumes: bool) -> None:
        """Find the record, and show the images that were drawn before an interruption."""
        self.record.begin(folder, resumes)
        self._folder = folder
        for step, strip in read_strips(folder.path, record.resumed_at).items():
            self.run.add_strip(step, strip)
        self._kept = self.run.strips().keys()

    def step(self, record: TrainingRecord) -> None:
        """Called after every step."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        self.run.update(record)
        last = record.step == self.run.steps or record.stopped is not None
        if last and (record.stopped or not self.run.status.startswith("WARNING")):
            self.run.status = record.stopped or ""  # replaces the memory estimate
        if last or self._is_due():
            self._bar.update_absolute(record.step, self.run.steps)
            self.tell()
            self.keep_samples()

    def prepare(self, done: int, total: int) -> None:
        """Called while images are drawn, before the first step."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        self.run.prepared = (done, total)
        if done == total or self._is_due():
            self._preparing.update_absolute(done, total)
            self.tell()

    def status(self, text: str) -> None:
        """Show the current activity, or the memory it will need, on the node."""
        self.run.status = text
        self.tell()

    def samples(self, step: int, pictures: Sequence[Tensor], captions: Sequence[str]) -> None:
        """Show images on the panel, and as a preview to the client that queued the run.

        The preview does not name its node, as a progress bar's would: the frontend would draw it
        a second time, below the panel.
        """
        picture = side_by_side(pictures)
        server = PromptServer.instance
        preview = ("JPEG", picture, None)
        server.send_sync(BinaryEventTypes.UNENCODED_PREVIEW_IMAGE, preview, server.client_id)
        file = BytesIO()
        picture.save(file, "JPEG", quality=88)
        self.run.add_strip(step, Strip(file.getvalue(), tuple(captions)))
        self.keep_samples()
        self.record.write()

    def keep_samples(self) -> None:
        """Keep the images with the checkpoint, once there is one."""
        strips = self.run.strips()
        folder = self._folder
        if strips.keys() == self._kept or not (folder and folder.state_file.exists()):
            return
        self._kept = strips.keys()
        try:
            keep_strips(folder.path, strips)
        except OSError as error:
            logger.warning("ZipLoRA: the sample images are not kept in %s: %s", folder.path, error)

    def solved(self, errors: Sequence[float]) -> None:
        """Show the error after each pass of the closed form."""
        self.run.errors = list(errors)
        self.tell()

    def saved(self, files: Sequence[str], step: int) -> None:
        """Show the files in which the current LoRA was saved."""
        self.run.saved = list(files)
        self.record.add_files(files, step)
        if self.run.status.startswith(NOT_SAVED):
            self.run.status = ""
        self.tell()

    def tell(self) -> None:
        """Send all new values to every open page."""
        self._told = time.perf_counter()
        self.run.tick()
        message = self.run.snapshot(after=self._sent)
        self._sent = self.run.last()
        self.record.write_in_time()
        PromptServer.instance.send_sync(EVENT, message | {"memory": used_memory()})

    def _is_due(self) -> bool:
        return time.perf_counter() - self._told >= _SECONDS


def used_memory() -> list[int]:
    """Return the memory in use on the training device and its total memory, in bytes."""
    device: Any = comfy.model_management.get_torch_device()
    total: Any = comfy.model_management.get_total_memory(device)
    free: Any = comfy.model_management.get_free_memory(device)
    return [int(total - free), int(total)]


def side_by_side(pictures: Sequence[Tensor]) -> Image.Image:
    """Put images `(h, w, 3)` in 0…1 side by side, at most as high as a preview is shown."""
    shown = [Image.fromarray((p * 255).round().byte().cpu().numpy()) for p in pictures]
    height = min(_HEIGHT, max(p.height for p in shown))
    shown = [p.resize((max(1, round(p.width * height / p.height)), height)) for p in shown]
    row = Image.new("RGB", (sum(p.width + _GAP for p in shown) - _GAP, height))
    left = 0
    for picture in shown:
        row.paste(picture, (left, 0))
        left += picture.width + _GAP
    return row
