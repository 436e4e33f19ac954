"""The list of past trainings through the live server: read, exported, continued and deleted."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import Any

import pytest

from sandbox.server import ComfyServer, PromptRejected
from ziplora_core.training.about import About, write_about
from ziplora_core.training.checkpoint import CheckpointFolder
from ziplora_core.training.interface import TrainingRecord
from ziplora_core.training.records import RecordFolder
from ziplora_core.training.run_history import Run
from ziplora_core.training.run_record import RunRecord

from ..dreambooth import test_train
from ..graph import Graph, report, succeeded
from .test_control import run_until

PROMPT = "a photo of a dog whose training is stopped and continued"
ALIKE = "a photo of a dog in two trainings whose nodes have the same values"
STEPS = 200


def trained(**inputs: Any) -> tuple[Graph, str]:
    """A training with samples that is saved as `past_dog`."""
    graph = Graph()
    few = {"sample_every": 4, "sample_prompts": ""}
    options = graph.out("TrainingOptions", **{**test_train.OPTIONS, **few})
    node = test_train.train(
        graph, test_train.plain(graph), prompt=PROMPT, options=options, **inputs
    )
    test_train.save(graph, node, "past_dog")
    return graph, node


def entry(server: ComfyServer) -> dict[str, Any]:
    return next(e for e in server.get("/ziplora/past")["trainings"] if e["title"] == PROMPT)


def delete(server: ComfyServer, name: str) -> int:
    request = urllib.request.Request(f"{server.url}/ziplora/past/{name}", method="DELETE")
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_training_is_listed_saved_by_its_name_stopped_continued_and_deleted(
    server: ComfyServer,
) -> None:
    graph, node = trained(steps=STEPS, seed=77)
    refused: list[int] = []

    def save_and_stop() -> None:
        refused.append(delete(server, server.get(f"/ziplora/training/{node}")["folder"]))
        server.post("/ziplora/save", {"node_id": node})
        server.post("/ziplora/stop", {"node_id": node})

    result = run_until(server, graph, node, 5, save_and_stop)
    assert result.status == "success" and refused == [409]  # one that runs is not deleted
    run = server.get(f"/ziplora/training/{node}")
    stopped = entry(server)
    place = f"/ziplora/past/{stopped['name']}"
    assert run["folder"] == stopped["name"] and run["continues"] and stopped["continues"]
    assert (run["kind"], run["title"]) == ("TrainDreamBoothLoRA", "TrainDreamBoothLoRA")
    assert (stopped["state"], stopped["steps"]) == ("stopped", STEPS)
    assert 5 <= stopped["step"] == run["step"] < STEPS
    so_far, end = stopped["files"]
    assert stopped["saved_at"] == {so_far: int(so_far[-17:-12]), end: stopped["step"]}
    assert so_far.startswith("unfinished/past_dog_000") and so_far.count("_") == 2
    assert end.startswith("past_dog_0") and (server.output / "loras" / so_far).exists()

    whole = server.get(place)
    assert whole["points"] == run["points"] and whole["samples"] == run["samples"] != []
    rows = {(row["node"], row["input"]): row["value"] for row in whole["settings"]}
    assert rows["", "steps"] == STEPS and rows["TrainingOptions", "warm_up_steps"] == 2
    assert server.get(f"{place}/samples/{whole['samples'][0]}")[:2] == b"\xff\xd8"
    lines = server.get(f"{place}/history.csv").decode().splitlines()
    assert lines[0] == "step,loss,instance" and len(lines) == 1 + len(run["points"]["step"])
    assert b"brain.Event:2" in server.get(f"{place}/events")
    assert server.get(f"{place}/request") == {"prompt": graph.prompt, "workflow": None}

    assert node not in succeeded(server, graph).executed  # Run alone does not train on
    asked = server.post(f"{place}/continue", {})
    assert (asked["prompt"], asked["node_id"]) == (graph.prompt, node)
    assert asked["step"] == stopped["step"]
    going = run_until(
        server, graph, node, stopped["step"] + 2, lambda: server.post("/ziplora/stop", {})
    )
    assert f"resumed at {stopped['step']}" in report(going, node)
    later = entry(server)
    assert later["step"] > stopped["step"] and later["started"] == stopped["started"]
    assert later["files"][:2] == [so_far, end] and later["samples"][0] == stopped["samples"][0]
    assert node not in succeeded(server, graph).executed

    assert delete(server, stopped["name"]) == 200
    assert all(e["title"] != PROMPT for e in server.get("/ziplora/past")["trainings"])
    for path in ("", "/samples/4", "/history.csv", "/events", "/request"):
        with pytest.raises(PromptRejected) as gone:
            server.get(place + path)
        assert gone.value.status == 404


@pytest.mark.thorough
def test_of_two_trainings_that_differ_before_the_node_only_the_continued_one_trains_again(
    server: ComfyServer,
) -> None:
    graphs = []
    for warm_up in (2, 3):
        graph = Graph()
        options = graph.out("TrainingOptions", **{**test_train.OPTIONS, "warm_up_steps": warm_up})
        node = test_train.train(
            graph, test_train.plain(graph), prompt=ALIKE, options=options, steps=STEPS, seed=78
        )
        test_train.save(graph, node, "alike")
        run_until(server, graph, node, 3, lambda: server.post("/ziplora/stop", {}))
        assert node not in succeeded(server, graph).executed
        graphs.append(graph)
    stopped = [e for e in server.get("/ziplora/past")["trainings"] if e["title"] == ALIKE]
    server.post(f"/ziplora/past/{min(stopped, key=lambda e: e['ended'])['name']}/continue", {})
    first, second = graphs
    assert node not in succeeded(server, second).executed
    going = run_until(server, first, node, 4, lambda: server.post("/ziplora/stop", {}))
    assert "resumed at " in report(going, node)


def test_record_of_a_closed_form_leaves_out_what_gradient_steps_alone_use(
    server: ComfyServer,
) -> None:
    graph = Graph()
    node = graph.optimise(graph.pair(), solver="closed_form", passes=1, calibration_states=2)
    graph.node("PreviewAny", source=[node, 3])
    succeeded(server, graph)
    name = server.get(f"/ziplora/training/{node}")["folder"]
    settings = server.get(f"/ziplora/past/{name}")["settings"]
    own = {row["input"] for row in settings if not row["node"]}
    assert {"solver", "layers", "passes"} <= own
    assert not own & {"steps", "learning_rate", "similarity", "similarity_weight"}


def test_killed_training_goes_on_from_its_checkpoint_though_its_record_is_of_a_later_step(
    server: ComfyServer,
) -> None:
    name = f"{8:016x}-{4:08x}"
    kept = CheckpointFolder(server.output / "ziplora" / "checkpoints" / name)
    kept.path.mkdir(parents=True)
    kept.state_file.touch()
    write_about(kept.path, About("DreamBooth", "a dog", steps=8, step=4))
    run = Run("5", 8)
    run.resumes = True
    run.update(TrainingRecord({"loss": [1.0] * 6}, 6))
    said = {"method": "DreamBooth", "title": "a dog", "key": "", "settings": []}
    record = RunRecord(RecordFolder.beside(kept.path), run, said)
    record.write()
    record.folder.write_request({}, None)
    assert server.get(f"/ziplora/past/{name}")["step"] == 6
    assert server.post(f"/ziplora/past/{name}/continue", {})["step"] == 4
    assert delete(server, name) == 200
