"""Save now through the live server: on the way there are the files that there are at the end."""

from __future__ import annotations

import json
from collections.abc import Callable
from urllib.parse import urlencode

import pytest

from sandbox.server import ComfyServer

from ..dreambooth import test_train
from ..dreambooth.test_train import metadata_of
from ..graph import FEW_HELD_OUT, Graph, report, saved_path, succeeded
from ..sliders.test_sliders import text_slider
from ..unziplora import unziplora_graph as unzip_graph
from .test_control import run_until

STEPS = 20
OF_THE_FILE = {
    *("ss_steps", "ss_output_name", "modelspec.title", "modelspec.description"),
    *("sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256", "ziplora.retention"),
}
"""Metadata that differs in a file saved on the way, or is not known yet."""


def merge(graph: Graph) -> tuple[str, list[str]]:
    node = graph.optimise(graph.pair(), steps=STEPS, seed=201)
    return node, [graph.save(node, "end/merge")]


def slider(graph: Graph) -> tuple[str, list[str]]:
    options = graph.out("TrainingOptions", **{**FEW_HELD_OUT, "held_out_draws": 0})
    node = text_slider(graph, steps=STEPS, seed=202, options=options)
    return node, [test_train.save(graph, node, "end/slider")]


def dreambooth(graph: Graph) -> tuple[str, list[str]]:
    node = test_train.train(graph, test_train.plain(graph), steps=STEPS, seed=203)
    return node, [test_train.save(graph, node, "end/dreambooth")]


def unzip(graph: Graph) -> tuple[str, list[str]]:
    node = unzip_graph.unzip(graph, steps=STEPS, seed=204)
    return node, [unzip_graph.save(graph, [node, slot], f"end{slot}") for slot in (1, 2)]


def weigh_its_halves(server: ComfyServer, names: list[str]) -> None:
    graph = Graph()
    applied = graph.apply(graph.node("LoadMergedLoRA", merged_lora=names[0]), 0.3, 0.9)
    graph.render([applied, 0], [applied, 1], "so_far")
    succeeded(server, graph)


def move_it_in_its_range(server: ComfyServer, names: list[str]) -> None:
    said = server.get(f"/ziplora/slider?{urlencode({'name': names[0]})}")
    assert said == {"range": [-2.0, 2.0], "start_percent": 0.25}
    graph = Graph()
    placed = graph.node(
        "ConceptSlider", model=graph.model, slider=names[0], scale=1.0, start_percent=0.25,
        end_percent=1.0,
    )  # fmt: skip
    graph.render([placed, 0], graph.clip, "so_far")
    assert "trained for -2 … 2" in report(succeeded(server, graph), placed)


def read_its_settings(server: ComfyServer, names: list[str]) -> None:
    said = json.loads(metadata_of(server.output / "loras" / names[0])["ziplora.settings"])
    assert (said["prompt"], said["rank"], said["steps"]) == ("a photo of sks dog", 4, STEPS)


def tell_its_parts_apart(server: ComfyServer, names: list[str]) -> None:
    said = [metadata_of(server.output / "loras" / name) for name in names]
    assert [s["ziplora.part"] for s in said] == ["content", "style"]
    phrases = [s["modelspec.trigger_phrase"] for s in said]
    assert phrases == [unzip_graph.CONTENT, unzip_graph.STYLED]


@pytest.mark.parametrize(
    ("start", "use"),
    [
        (merge, weigh_its_halves),
        pytest.param(slider, move_it_in_its_range, marks=pytest.mark.thorough),
        pytest.param(dreambooth, read_its_settings, marks=pytest.mark.thorough),
        pytest.param(unzip, tell_its_parts_apart, marks=pytest.mark.thorough),
    ],
)
def test_save_now_writes_what_the_end_writes_and_goes_on(
    start: Callable[[Graph], tuple[str, list[str]]],
    use: Callable[[ComfyServer, list[str]], None],
    server: ComfyServer,
) -> None:
    graph = Graph()
    node, ends = start(graph)
    told: list[object] = []
    result = run_until(
        server, graph, node, 1, lambda: told.append(server.post("/ziplora/save", {}))
    )
    assert result.status == "success" and told == [{"saving": [node]}]
    run = server.get(f"/ziplora/training/{node}")
    names = run["saved"]
    assert (run["state"], run["step"], len(names)) == ("finished", STEPS, len(ends))
    for name, end in zip(names, ends, strict=True):
        assert f"saved as {name}" in server.log()
        so_far = metadata_of(server.output / "loras" / name)
        final = metadata_of(saved_path(result, end))
        assert {k for k in {**so_far, **final} if so_far.get(k) != final.get(k)} <= OF_THE_FILE
        assert 0 < int(so_far.get("ss_steps", STEPS)) <= STEPS
        graph = Graph()
        model, clip = ([graph.stock_lora(graph.model, graph.clip, name), n] for n in (0, 1))
        graph.render(model, clip, "so_far")
        missing = server.log().count("lora key not loaded")
        succeeded(server, graph)
        assert server.log().count("lora key not loaded") == missing
    use(server, names)
