"""Runs every fault of every node on one device, and writes what came of each; see `faults`."""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sandbox.commands import say
from sandbox.paths import DEVICE

from . import trainings
from .trainings import Made, Subject

trainings.load_pack()

import comfy.model_management  # noqa: E402
import folder_paths  # noqa: E402
import torch  # noqa: E402

from .condition import (  # noqa: E402
    condition,
    digest,
    live_bytes,
    partial_files,
    temporary_files,
)
from .fault_plan import plan  # noqa: E402
from .injection import (  # noqa: E402
    BACKWARD_OUT_OF_MEMORY,
    CANCEL,
    DISK_ERROR,
    ERROR,
    FULL_DISK,
    KILL,
    OUT_OF_MEMORY,
    Fault,
    Injector,
)

MODEL, RESUME, SAID = "model", "resume", "said"
TYPED, TEMPORARY, PARTIAL, MEMORY = "typed", "temporary", "partial", "memory"
DISK_BYTES = 1 << 24
SAYS = (" failed (", "memory ran out", "this is the state of step", "non-finite numbers")
"""What a report has where the result is another one than without the fault."""
DIFFERS = ("memory ran out", "failed halfway; the state before it is not there")
"""What the report of a resumed training has where the result may differ a little."""
ROUNDING = 1e-5 if DEVICE == "cpu" else 1e-3
"""Relative difference where samples run one by one, as they do once memory has run out."""
SAME = 1e-3 if DEVICE != "cpu" else 0.0


@dataclass
class Outcome:
    """What came of one fault.

    Args:
        node, kind, place: names.
        ended: how the run ended: killed, returned, or the name of the exception.
        resumed_at: from which step it went on when it was queued again, -1 for nothing.
        left: number of temporary files that a killed process has left.
        broken: for each promise that was tried, what was found instead, empty if it held.
    """

    node: str
    kind: str
    place: str
    ended: str = ""
    resumed_at: int = -1
    left: int = 0
    broken: dict[str, str] = field(default_factory=dict)


class Bench:
    """One node, its result without faults, and its condition before."""

    def __init__(self, subject: Subject, injector: Injector, disk: Path) -> None:
        self.subject, self.injector, self.disk = subject, injector, disk
        for _ in range(2):  # the first one fills caches
            self.plain = self._run(None)
        live_bytes(subject.models)
        gc.freeze()
        self.before, self.bytes = condition(subject.models), live_bytes(subject.models)

    def _run(self, fault: Fault | None) -> Made:
        output = self.disk / "output"
        output.mkdir(exist_ok=True)
        folder_paths.set_output_directory(str(output))
        self.injector.arm(fault, output)
        try:
            return self.subject.run()
        finally:
            self.happened, self.passed = self.injector.happened, dict(self.injector.passed)
            self.injector.arm(None, Path())
            comfy.model_management.interrupt_current_processing(False)  # as before each prompt

    def outcome(self, fault: Fault) -> Outcome | None:
        """Run with a fault and look at what it left; None if the run does not pass its place."""
        found = Outcome(self.subject.name, fault.kind, fault.place)
        made = self._killed(fault, found) if fault.kind == KILL else self._faulted(fault, found)
        (self.disk / "filler").unlink(missing_ok=True)
        if found.ended:
            output = self.disk / "output"
            found.broken[PARTIAL] = ", ".join(partial_files(output))
            if made is not None:
                found.broken[SAID] = self._said(made, fault.kind)
                returned, made = True, None  # it holds tensors
            else:
                returned = False
            if fault.kind != KILL:
                found.broken[TEMPORARY] = ", ".join(temporary_files(output))
                # First this, which unloads the models: that takes LoRAs off them.
                more = live_bytes(self.subject.models) - self.bytes
                found.broken[MEMORY] = f"{more} bytes more" if more > 0 else ""
                now = condition(self.subject.models)
                found.broken[MODEL] = ", ".join(k for k in now if now[k] != self.before[k])
            if self.subject.resumes and not returned:
                self._again(found)
        shutil.rmtree(self.disk / "output", ignore_errors=True)
        return found if found.ended else None

    def _faulted(self, fault: Fault, found: Outcome) -> Made | None:
        try:
            made = self._run(fault)
            found.ended = "returned" if self.happened else ""
            return made
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 (a cancel is not an Exception)
            found.ended = type(error).__name__
            allowed = {ERROR: "FaultError", CANCEL: "InterruptProcessingException"}
            typed = found.ended in ("ZipLoRAError", allowed.get(fault.kind))
            found.broken[TYPED] = "" if typed else f"{found.ended}: {str(error)[:200]}"
        return None

    def _killed(self, fault: Fault, found: Outcome) -> None:
        """Run in a copy of this process, which is killed."""
        child = os.fork()
        if not child:
            logging.disable()
            try:
                self._run(fault)
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            found.ended = "killed"
            found.left = len(temporary_files(self.disk / "output"))

    def _again(self, found: Outcome) -> None:
        """Queue the same inputs once more."""
        try:
            made = self._run(None)
        except Exception as error:  # noqa: BLE001 (that the training ends is the promise)
            found.broken[RESUME] = f"{type(error).__name__}: {str(error)[:200]}"
            return
        _, _, after = made.report.partition("resumed at ")
        found.resumed_at = int("".join(c for c in after[:6] if c.isdigit()) or 0)
        off = difference(made, self.plain)
        found.broken[RESUME] = f"differs by {off:.2g}, resumed at {found.resumed_at}"
        if off <= SAME or any(said in made.report for said in DIFFERS):
            found.broken[RESUME] = ""

    def _said(self, made: Made, kind: str) -> str:
        """Return what a result has that its report does not say."""
        if not all(bool(t.isfinite().all()) for t in made.tensors.values()):
            return "not finite"
        off = difference(made, self.plain)
        allowed = ROUNDING if kind in (OUT_OF_MEMORY, BACKWARD_OUT_OF_MEMORY) else SAME
        if off <= allowed or any(said in made.report for said in SAYS):
            return ""
        return f"differs by {off:.2g}"


def difference(made: Made, plain: Made) -> float:
    """Return the norm of the difference of two results, relative; 0 if they are bit-identical."""
    if digest(made.tensors) == digest(plain.tensors):
        return 0.0
    if made.tensors.keys() != plain.tensors.keys():
        return float("inf")
    pairs = [(made.tensors[k].float(), t.float()) for k, t in plain.tensors.items()]
    norm = sum(float(t.square().sum()) for _, t in pairs)
    return (sum(float((got - t).square().sum()) for got, t in pairs) / norm) ** 0.5 or 1e-30


@contextmanager
def small_disk(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Mount a small disk of memory in a folder; yield it, and whether mounting is allowed here."""
    disk = folder / "disk"
    disk.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(disk)]
    mounted = subprocess.run(["mount", *options], capture_output=True).returncode == 0
    try:
        yield disk, mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(disk)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("result", type=Path)
    parser.add_argument("--every", type=int, default=1, help="only every n-th fault")
    parser.add_argument("--nodes", nargs="+", default=[*trainings.TRAININGS, *trainings.TOOLS])
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.ERROR)
    injector = Injector()
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as folder, small_disk(Path(folder)) as (disk, small):
        trainings.make_server(injector.loop(), Path(folder))
        for number, name in enumerate(options.nodes):
            tool = name in trainings.TOOLS
            bench = Bench(trainings.open_subject(name), injector, disk)
            for fault in plan(bench.passed, options.every, tool, number):
                started = time.monotonic()
                if _is_left_out(fault, small) or not (found := bench.outcome(fault)):
                    continue
                outcomes.append(found)
                broken = {k: v for k, v in found.broken.items() if v}
                seconds = time.monotonic() - started
                say(f"{name}: {fault}: {found.ended}, {seconds:.1f} s {broken or ''}")
                options.result.write_text(json.dumps([asdict(o) for o in outcomes]))


def _is_left_out(fault: Fault, small: bool) -> bool:
    """Return whether a fault cannot be made here, or does not depend on the device."""
    if fault.kind == FULL_DISK and not small:
        return True
    return DEVICE != "cpu" and fault.kind in (KILL, FULL_DISK, DISK_ERROR)


if __name__ == "__main__":
    main()
