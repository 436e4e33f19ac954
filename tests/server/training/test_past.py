"""Past Trainings, limits and files of killed servers, through the live server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.server import ComfyServer, fresh_base
from ziplora_core.files.temporary import this_computer

from ..dreambooth import test_train
from ..graph import Graph, report, succeeded
from .test_control import run_until


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """A server of its own, as limits and deletions concern all who train in its output folder."""
    base = fresh_base(tmp_path_factory.mktemp("past"))
    with ComfyServer(base) as running:
        yield running


def past(server: ComfyServer, **inputs: Any) -> str:
    graph = Graph()
    node = graph.node("PastTrainings", **{"delete": "nothing", **inputs})
    return report(succeeded(server, graph), node)


def merge(graph: Graph, seed: int, steps: int = 4) -> str:
    node = graph.optimise(graph.pair(), steps=steps, seed=seed)
    graph.node("PreviewAny", source=[node, 0])
    return node


def folders(server: ComfyServer) -> set[str]:
    root = server.output / "ziplora" / "checkpoints"
    return {path.name for path in root.iterdir() if path.is_dir()}


def test_trainings_are_listed_limited_and_deleted(own: ComfyServer) -> None:
    graph = Graph()
    node = merge(graph, 1)
    said = report(succeeded(own, graph), node)
    assert "trainings kept: 1, " in said and "(limits: 20, 14 days, 20 GB;" in said
    (first,) = folders(own)
    graph = Graph()
    node = merge(graph, 2, steps=40)
    assert run_until(own, graph, node, 3, own.interrupt).status == "interrupted"
    (second,) = folders(own) - {first}

    lines = past(own)
    assert lines.startswith("2 trainings, ")
    assert f"{first}, ZipLoRA, step 4 of 4, finished, not saved, " in lines
    assert f"{second}, ZipLoRA, step " in lines and " of 40, unfinished, " in lines

    limits = {"change_limits": True, "most_folders": 2, "most_days": 3.0, "most_gigabytes": 0.0}
    assert past(own, **limits).startswith("limits from now on: 2, 3 days")
    assert "limits: 2, 3 days" in past(own)
    graph = Graph()
    node = merge(graph, 3)
    said = report(succeeded(own, graph), node)
    assert f"removed to stay within these limits: {second} (unfinished)" in said
    assert first in folders(own) and second not in folders(own)
    (third,) = folders(own) - {first}

    assert past(own, delete="named", folders=third).startswith(f"deleted: {third}, ")
    assert folders(own) == {first}
    assert past(own, delete="finished").startswith(f"deleted: {first}, ")
    assert folders(own) == set()
    assert past(own, delete="finished").startswith("deleted: nothing is kept that is finished")
    said = past(own, **{**limits, "most_days": 1e-9})  # which nothing that is kept is within
    assert f"removed to stay within these limits: {second} (nothing to resume)" in said
    assert "0 records of trainings" in said
    past(own, **limits)


def test_training_is_listed_again_in_every_run(own: ComfyServer) -> None:
    graph = Graph()
    node = graph.node("PastTrainings", delete="nothing")
    succeeded(own, graph)
    assert node in succeeded(own, graph).executed


def test_name_outside_the_list_is_refused(own: ComfyServer) -> None:
    graph = Graph()
    graph.node("PastTrainings", delete="named", folders="../../loras")
    result = own.run(graph.prompt)
    assert result.error is not None
    assert result.error["exception_message"].startswith("folders: found ../../loras")


@pytest.mark.thorough
def test_running_training_is_never_deleted_by_another_server(own: ComfyServer) -> None:
    said: list[str] = []
    graph = Graph()
    node = merge(graph, 4, steps=5000)  # it runs until it is stopped
    with ComfyServer(own.base) as other:

        def act() -> None:
            said.append(past(other, delete="everything"))
            own.post("/ziplora/stop", {})

        run_until(own, graph, node, 3, act)
    assert "not deleted, as a training uses it: " in said[0]
    assert own.get(f"/ziplora/training/{node}")["state"] == "stopped"


def test_class_pictures_are_listed_and_deleted(own: ComfyServer) -> None:
    graph = Graph()
    node = test_train.train(
        graph, test_train.plain(graph), steps=2, seed=5, class_prompt="a photo of a dog",
        class_count=2,
    )  # fmt: skip
    graph.node("PreviewAny", source=[node, 0])
    succeeded(own, graph)
    assert "1 set of class pictures, " in past(own)
    past(own, delete="class pictures")
    assert "0 sets of class pictures, 0 bytes" in past(own)


@pytest.mark.thorough
def test_temporary_files_of_a_killed_server_are_gone_after_the_next_start(
    own: ComfyServer,
) -> None:
    inside = own.output / "loras" / "sub"
    inside.mkdir(parents=True, exist_ok=True)
    left = inside / f".ziplora-{this_computer()}-0123456789ab.tmp"
    left.write_bytes(b"half of a file")
    with ComfyServer(own.base) as other:
        assert not left.exists()
        assert "removed 1 temporary files of runs that were killed" in other.log()
