"""Inputs by the thousand in child processes, with limits of memory and time."""

from __future__ import annotations

import contextlib
import gc
import json
import multiprocessing
import random
import resource
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .mutation import damage
from .targets import TARGETS, TYPED

SECONDS = 5.0
"""Processor time within which an input is answered."""
GROWTH, BASE = 20, 64 << 20
"""Bytes of memory for each byte of an input, and for any input."""
_ADDRESSES = 4 << 30
"""Bytes of address space a child may add to its own; a request for more fails at once."""
_KEPT = 50


@dataclass
class Counts:
    """What happened to the inputs of one target.

    Args:
        inputs: number of inputs.
        refused: how many had a typed error, or were set aside or answered with 400.
        slowest: longest processor time of one, in seconds.
        largest: most memory of one beyond GROWTH times its size, in bytes.
        faults: number of inputs that broke a promise, by kind of fault.
        examples: a description of the first input of each kind.
    """

    inputs: int = 0
    refused: int = 0
    slowest: float = 0.0
    largest: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def add(self, other: Counts) -> None:
        """Add the counts of another child."""
        self.inputs, self.refused = self.inputs + other.inputs, self.refused + other.refused
        self.slowest = max(self.slowest, other.slowest)
        self.largest = max(self.largest, other.largest)
        self.faults.update(other.faults)
        self.examples = [*self.examples, *other.examples][:_KEPT]

    def fault(self, kind: str, data: bytes) -> None:
        """Count a fault, and keep the first input of its kind."""
        self.faults[kind] += 1
        if self.faults[kind] == 1 and len(self.examples) < _KEPT:
            self.examples.append(f"{kind}: {data[:20_000].hex()}")


class TooSlowError(BaseException):
    """An input that takes longer than twice SECONDS; no code that is tested catches it."""


class Watch:
    """Reads inputs with one target, and counts what they cost and raise."""

    def __init__(self, name: str, folder: Path) -> None:
        self.target, self.folder, self.counts = TARGETS[name], folder, Counts()
        signal.signal(signal.SIGVTALRM, self._stop)
        for seed in self.target.seeds():  # loads what is loaded only once
            with contextlib.suppress(*TYPED):
                self.target.read(seed, folder)
        gc.collect()
        gc.freeze()  # else an input pays half a second for the collection of what was imported

    def read(self, data: bytes) -> bool:
        """Read one input; returns whether it was read, not refused."""
        refused, before, started = self.counts.refused, _peak(), time.process_time()
        self._read(data)
        seconds, grown = time.process_time() - started, _peak() - before
        self.counts.inputs += 1
        self.counts.slowest = max(self.counts.slowest, seconds)
        extra = grown - GROWTH * len(data)
        self.counts.largest = max(self.counts.largest, extra)
        if seconds > SECONDS:
            self.counts.fault(f"{seconds:.0f} seconds", data)
        if extra > BASE:
            self.counts.fault(f"memory of {extra >> 20} MiB", data)
        return self.counts.refused == refused

    def _read(self, data: bytes) -> None:
        signal.setitimer(signal.ITIMER_VIRTUAL, 2 * SECONDS)
        try:
            if self.target.read(data, self.folder) is False:
                self.counts.refused += 1
        except TYPED:
            self.counts.refused += 1
        except (Exception, TooSlowError) as error:  # noqa: BLE001 it is what is looked for
            last = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(last.filename).name}:{last.lineno}"
            self.counts.fault(f"{type(error).__name__} at {place}", data)
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            for path in self.folder.iterdir():
                path.unlink()

    def _stop(self, *_: object) -> None:
        raise TooSlowError


def run(name: str, inputs: int, seed: int, seconds: float = 1e9) -> Counts:
    """Read mutated seeds of a target in a child, and the rest in new ones where it dies.

    Args:
        name: one of TARGETS.
        inputs: how many.
        seed: of all random choices.
        seconds: time after which it stops, however many are read.
    """
    total, end = Counts(), time.monotonic() + seconds
    while total.inputs < inputs and time.monotonic() < end:
        rest = inputs - total.inputs, seed + total.inputs, end - time.monotonic()
        total.add(in_child(partial(_loop, name, *rest)))
    return total


def in_child(work: Callable[[], Counts]) -> Counts:
    """Run in a forked process; one that dies is a fault of the input that it read."""
    here, there = multiprocessing.Pipe(duplex=False)
    process: Any = multiprocessing.get_context("fork").Process(
        target=lambda: there.send(work()), daemon=True
    )
    process.start()
    there.close()
    try:
        counts = here.recv()
    except EOFError:
        counts = Counts(1, faults=Counter(["the process died"]))
    process.join()
    return counts


def _loop(name: str, inputs: int, seed: int, seconds: float) -> Counts:
    torch.set_num_threads(1)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_addresses() + _ADDRESSES, hard))
    draw, seeds = random.Random(seed), TARGETS[name].seeds()
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        watch = Watch(name, Path(folder))
        end = time.monotonic() + seconds
        pool = list(seeds)
        for number in range(inputs):
            if time.monotonic() > end:
                break
            data = damage(draw.choice(pool), pool, draw)
            if watch.read(data) and number % 4 == 0:  # damage on damage reaches further
                pool = [*seeds, *pool[len(seeds) :][-64:], data]
    return watch.counts


def _memory() -> str | None:
    """Return a folder in memory, where there is one."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _addresses() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def written(counts: Counts) -> str:
    """Write counts as JSON, for another process."""
    return json.dumps({**vars(counts), "faults": dict(counts.faults)})
