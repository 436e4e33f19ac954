"""A running server with the pack: what it connects to, starts, writes, keeps and leaves behind."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from sandbox.overrides import OVERRIDES
from sandbox.server import ComfyServer, fresh_base

from . import watcher
from .foreign import tests_module
from .promise import Promise

RUNS, SHORT_RUNS = 100, 6
STEPS = 3
LEAK = 1 << 18
"""Bytes of resident memory a run may keep: ComfyUI's history of prompts, and the allocator. A
hundred trainings a day would then take 25 MiB, a third of a percent of a computer with 8 GiB."""


def measure(short: bool) -> list[Promise]:
    """Run workflows and trainings on a server that is watched."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "events")
        base = fresh_base(Path(folder))
        watcher.watch(log, base / "custom_nodes" / "ziplora")
        with ComfyServer(base) as server, watcher.Sockets(server.pid) as sockets:
            started = time.time()
            workflows = [] if short else _workflows(server)
            memory, left = _trainings(server, SHORT_RUNS if short else RUNS)
        found = watcher.events(log, started)
        runs = len(workflows) + len(memory)
        own = [base / name for name in ("output", "temp")]
        seen = sum(event.from_pack for event in found)
        if not seen:
            raise RuntimeError("no event came from the pack: the watcher does not know its files")
        return [
            _none(
                "The server opens no connection to another machine and looks none up", runs,
                [*map(str, watcher.connections(found)), *sorted(sockets.remote)],
                f"{len(found)} events of Python, {sockets.samples} samples of all its sockets",
            ),
            _none(
                "The pack starts no program", runs,
                [str(e) for e in watcher.programs(found) if e.from_pack],
            ),
            _none(
                "The pack writes only to ComfyUI's output and temp folders", runs,
                [str(e) for e in watcher.written(found, own) if e.from_pack],
                f"{seen} files and folders written, made or removed by it",
            ),
            _level(memory),
            _none("Of a training that was saved, only its file and its record are left",
                  len(memory), left,
                  f"{sum(map(int, (line.split()[0] for line in left)))} bytes"),
        ]  # fmt: skip


def _none(text: str, runs: int, found: Sequence[str], figures: str = "") -> Promise:
    """Return a promise that something never happens."""
    return Promise(text, runs, runs if not found else 0, figures, list(found[:10]))


def _level(memory: Sequence[int]) -> Promise:
    """Compare the resident memory after the first runs and after the last ones.

    The first tenth fills the allocator's pools and Python's caches.
    """
    tenth = max(1, len(memory) // 10)
    first, last = median(memory[tenth : 3 * tenth]), median(memory[-2 * tenth :])
    runs = len(memory) - 3 * tenth
    each = (last - first) / runs
    figures = f"{each / 1024:+.1f} KiB a run, {first / 2**20:.0f} MiB resident at first"
    broken = [figures] if each > LEAK and len(memory) >= RUNS else []
    text = f"{len(memory)} trainings in a row keep less than 256 KiB each in memory, in the mean"
    return Promise(text, 1, int(not broken), figures, broken)


def _workflows(server: ComfyServer) -> list[str]:
    """Run every shipped workflow, small, each after those whose files it names."""
    tests = tests_module("server", "test_workflows")
    done: list[str] = []

    def run(name: str) -> None:
        if name in done:
            return
        for earlier in tests.NEEDS.get(name, ()):
            run(earlier)
        result = server.run(tests.prompt_of(name, server, OVERRIDES), timeout=900)
        if result.status != "success":
            raise RuntimeError(f"{name}: {result.error}")
        done.append(name)

    for name in tests.NAMES:
        run(name)
    return done


def _trainings(server: ComfyServer, runs: int) -> tuple[list[int], list[str]]:
    """Train and save with a new seed each time; return the memory after each, and what is left."""
    graphs = tests_module("server", "graph")
    kept = {path: path.stat().st_size for path in _files(server)}
    memory = []
    for seed in range(runs):
        graph = graphs.Graph()
        merged = graph.optimise(graph.pair(), drawn=True, seed=seed, steps=STEPS)
        graph.save(merged, "leaks/m")
        _done(server.run(graph.prompt, timeout=600))
        memory.append(watcher.resident_bytes(server.pid))
    left = [path for path in _files(server) if path not in kept]
    return memory, [f"{path.stat().st_size} {path.relative_to(server.base)}" for path in left]


def _files(server: ComfyServer) -> list[Path]:
    """List all files in the output and temp folders but saved LoRAs and records of trainings."""
    folders = (server.output, server.base / "temp")
    found = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    kept = (server.output / "loras", server.output / "ziplora" / "records")
    return [path for path in found if not any(map(path.is_relative_to, kept))]


def _done(result: Any) -> None:
    if result.status != "success":
        raise RuntimeError(str(result.error))
