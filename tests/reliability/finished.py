"""Servers that are killed when a training has ended and its LoRA is not in a file yet."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.server import ComfyServer, Result, ServerError
from tests.server.dreambooth import test_train as dreambooth
from tests.server.graph import Graph, report, saved_path, succeeded
from tests.server.sliders import test_sliders as sliders
from tests.server.unziplora import unziplora_graph as unziplora
from ziplora_core.training.checkpoint import CheckpointFolder

from .promise import Promise

STEPS, HELD = 6, "held"
"""The steps of every training; the file in the input folder that holds the graph before Save."""


@dataclass(frozen=True)
class Task:
    """A graph that trains, waits and saves.

    Args:
        graph: the graph.
        trained: id of the training node.
        wait: id of the node that waits.
        saves: ids of the nodes that save.
    """

    graph: Graph
    trained: str
    wait: str
    saves: list[str]


def _task(train: Callable[[Graph], str], report_slot: int, *outputs: tuple[str, str, int]) -> Task:
    """Build a graph; each of `outputs` is a Save node's id, its input and the slot it takes."""
    graph = Graph()
    trained = train(graph)
    wait = graph.node("SandboxWait", prefix="finished/lora", report=[trained, report_slot])

    def named(slot: int) -> Any:
        """Name the files by their slot: ComfyUI runs the save nodes in any order."""
        return graph.out("StringConcatenate", string_a=[wait, 0], string_b=str(slot), delimiter="_")

    saves = [
        graph.node(
            kind, filename_prefix=named(slot), dtype="fp16", **{name: [trained, slot]},
            **({"rank": 0} if kind == "SaveMergedLoRA" else {"bias_and_norm": "refuse"}),
        )
        for kind, name, slot in outputs
    ]  # fmt: skip
    return Task(graph, trained, wait, saves)


def _merge(graph: Graph) -> str:
    return graph.optimise(graph.pair(), steps=STEPS, seed=301)


def _dreambooth(graph: Graph) -> str:
    return dreambooth.train(graph, dreambooth.plain(graph), steps=STEPS, seed=302)


def _words(graph: Graph) -> str:
    return sliders.text_slider(graph, steps=STEPS, seed=303)


def _pictures(graph: Graph) -> str:
    return sliders.image_slider(graph, sliders.pairs(graph), steps=STEPS, seed=304)


def _unzip(graph: Graph) -> str:
    return unziplora.unzip(graph, steps=STEPS, seed=305)


_TRAINED = "SaveTrainedLoRA", "lora"
TASKS: dict[str, Callable[[], Task]] = {
    "UnZipLoRA Train": lambda: _task(_unzip, 4, (*_TRAINED, 1), (*_TRAINED, 2)),
    "ZipLoRA Optimize": lambda: _task(_merge, 3, ("SaveMergedLoRA", "merged", 0)),
    "Train DreamBooth LoRA": lambda: _task(_dreambooth, 2, (*_TRAINED, 0)),
    "Train Concept Slider": lambda: _task(_words, 2, (*_TRAINED, 0)),
    "Train Concept Slider (image pairs)": lambda: _task(_pictures, 2, (*_TRAINED, 0)),
}


def measured(names: list[str], base: Path) -> list[Promise]:
    """Kill a server after each training, start it again and queue the same graph.

    Args:
        names: names of `TASKS`.
        base: a base directory of ComfyUI of its own.
    """
    tasks = {name: TASKS[name]() for name in names}
    files: dict[str, list[bytes]] = {}
    broken: list[str] = []
    with ComfyServer(base) as server:
        for name, task in tasks.items():
            files[name] = _saved(server, task)
            if kept := _folders(server):
                broken.append(f"{name}: after the file was written there was still {kept}")
    ended = ""
    for name in [*tasks, ""]:
        with ComfyServer(base) as server:
            if ended:
                broken += [f"{ended}: {b}" for b in _ends(server, tasks[ended], files[ended])]
            if name:
                _kill_before_save(server, tasks[name])
        ended = name
    text = (
        "A training that has ended is not lost when the server is killed before its LoRA is "
        "saved: the same graph takes no step, and writes the same bytes."
    )
    failed = {line.split(":")[0] for line in broken}
    figures = f"kill -9 after the last step of {', '.join(names)}"
    return [Promise(text, len(tasks), len(tasks) - len(failed), figures, broken)]


def _saved(server: ComfyServer, task: Task) -> list[bytes]:
    """Run a graph, and take its files away, so that the next ones have the same names."""
    return _taken(succeeded(server, task.graph, timeout=900), task)


def _taken(result: Result, task: Task) -> list[bytes]:
    paths = [saved_path(result, node) for node in task.saves]
    contents = [path.read_bytes() for path in paths]
    for path in paths:
        path.unlink()
    return contents


def _kill_before_save(server: ComfyServer, task: Task) -> None:
    """Run a graph, and kill the server once the training has ended and nothing is saved."""
    held = server.base / "input" / HELD
    held.touch()

    def watch(event: Any) -> None:
        if event["type"] == "executing" and event["data"]["node"] == task.wait:
            server.kill()

    try:
        with suppress(ServerError):
            server.run(task.graph.prompt, timeout=900, on_event=watch)
            raise AssertionError("the server was not killed")
    finally:
        held.unlink()


def _ends(server: ComfyServer, task: Task, files: list[bytes]) -> list[str]:
    """Run the graph of a killed server again; return what is not as promised."""
    broken = []
    (folder,) = _folders(server) or [None]
    about = None if folder is None else CheckpointFolder(folder).about()
    if about is None or (about.state, about.step, about.saved) != ("finished", STEPS, ()):
        broken.append(f"{folder} says {about}")
    steps: set[int] = set()

    def watch(event: Any) -> None:
        data = event["data"]
        if event["type"] == "progress" and data["node"] == task.trained and data["max"] == STEPS:
            steps.add(data["value"])

    result = succeeded(server, task.graph, timeout=900, on_event=watch)
    said = report(result, task.trained)
    if f"resumed at {STEPS}" not in said or steps - {STEPS}:
        broken.append(f"steps {sorted(steps)} were taken again: {said}")
    if _taken(result, task) != files:
        broken.append("the files have other bytes")
    if kept := _folders(server):
        broken.append(f"after the file was written there was still {kept}")
    return broken


def _folders(server: ComfyServer) -> list[Path]:
    return sorted((server.output / "ziplora" / "checkpoints").glob("*"))
