"""Processes that are killed at random moments while they write, and what the next start leaves."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from sandbox.server import ComfyServer, ServerError
from tests.server.graph import Graph
from ziplora_core.files.atomic import write_bytes
from ziplora_core.files.temporary import temporary_file

from .promise import Promise

SIZE = 4_000_000
"""Bytes of a file that is written: enough that most kills hit the writing of one."""


def measured(kills: int, servers: int, base: Path, rng: random.Random) -> list[Promise]:
    """Kill writing processes and training servers; start a server after each and look.

    Args:
        kills: number of writing processes.
        servers: number of servers.
        base: base directory of the servers.
        rng: source of the moments.
    """
    output = base / "output"
    folders = [output / "loras" / "sub" / "sub", output / "ziplora" / "checkpoints" / "a"]
    for folder in folders:
        folder.mkdir(parents=True)
    for n in range(kills):
        _kill_a_writer(folders[n % 2], rng)
    left = _temporary(output)
    size = sum(path.stat().st_size for path in left)
    damaged = [str(path) for path in _finals(folders) if not _is_whole(path)]
    with _living_writer(folders[0]) as held, ComfyServer(base):
        still = [str(path) for path in _temporary(output) if path != held]
        held_stays = held.exists()
    killed = [_kill_a_server(base, rng) for _ in range(servers)]
    after = [n for n in killed if n[1]]
    return [
        Promise(
            "A killed process leaves no temporary file after the next start",
            kills + servers,
            kills + servers - len(still) - len(after),
            f"{kills} writers and {servers} training servers; the kills of writers left "
            f"{len(left)} files, {size / 1e6:.0f} MB, those of servers {sum(n[0] for n in killed)}",
            [*still, *(f"{n[1]} files after a killed server" for n in after)],
        ),
        Promise(
            "A killed process leaves no partial file under a final name",
            kills, kills - len(damaged), "", damaged,
        ),
        Promise(
            "A starting server leaves the temporary file of a living process",
            1, int(held_stays), "", [] if held_stays else [str(held)],
        ),
    ]  # fmt: skip


def _kill_a_writer(folder: Path, rng: random.Random) -> None:
    """Fork a process that writes files, and kill it while it does."""
    data = rng.randbytes(SIZE)
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        with suppress(BaseException):
            _write(folder, data, writing)
        os._exit(1)
    os.read(reading, 1)
    time.sleep(rng.uniform(0, 0.1))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(reading)
    os.close(writing)


def _write(folder: Path, data: bytes, ready: int) -> None:
    """Write files for ever, each beginning with the hash of the rest; say when it begins."""
    os.write(ready, b"1")
    for n in count():
        write_bytes(folder / f"{n % 4}.bin", hashlib.sha256(data).digest(), data, replace=True)


def _finals(folders: list[Path]) -> list[Path]:
    return [path for folder in folders for path in folder.glob("*.bin")]


def _is_whole(path: Path) -> bool:
    data = path.read_bytes()
    return hashlib.sha256(data[32:]).digest() == data[:32]


def _temporary(output: Path) -> list[Path]:
    return [path for path in output.rglob(".*.tmp") if path.is_file()]


@contextmanager
def _living_writer(folder: Path) -> Iterator[Path]:
    """Run a process that is in the middle of a file; yield the file."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        with suppress(BaseException), temporary_file(folder) as (path, _):
            os.write(writing, path.name.encode())
            signal.pause()
        os._exit(1)
    try:
        yield folder / os.read(reading, 255).decode()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reading)
        os.close(writing)


def _kill_a_server(base: Path, rng: random.Random) -> tuple[int, int]:
    """Kill a server that trains and writes all the time; count files before and after a start."""
    output = base / "output"
    with ComfyServer(base) as server:
        graph = Graph()
        node = graph.optimise(graph.pair(), steps=400, seed=rng.randrange(2**31))
        graph.prompt[node]["inputs"]["options"] = graph.out("TrainingOptions", **_OPTIONS)
        graph.node("PreviewAny", source=[node, 0])
        at = rng.randrange(2, 30)

        def watch(event: Any) -> None:
            data = event["data"]
            if event["type"] == "ziplora.training" and data["step"] >= at:
                server.post("/ziplora/save", {})
                time.sleep(rng.uniform(0, 0.2))
                server.kill()

        with suppress(ServerError, OSError):
            server.run(graph.prompt, on_event=watch)
    left = len(_temporary(output))
    with ComfyServer(base):
        return left, len(_temporary(output))


_OPTIONS = {
    "optimiser": "adamw", "schedule": "constant", "warm_up_steps": 0, "batch": 1,
    "accumulation": 1, "gradient_clip": 1.0, "min_snr_gamma": 0.0, "checkpoint_every": 1,
    "early_stop": False, "held_out_draws": 0, "resume": "auto", "caption_dropout": 0.0,
    "sample_every": 0, "sample_prompts": "",
}  # fmt: skip
