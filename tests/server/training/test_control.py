"""Control while it trains, through the live server: progress, cancel, resume, stop, same seed."""

from __future__ import annotations

import time
from typing import Any

import pytest

from sandbox.server import ComfyServer, PromptRejected, Result

from ..graph import Graph, report, saved_path, succeeded

STEPS = 20


def merge(prefix: str, **inputs: Any) -> tuple[Graph, str, str]:
    """Optimise and save; returns the graph and the ids of both nodes."""
    graph = Graph()
    merged = graph.optimise(graph.pair(), **{"steps": STEPS, **inputs})
    return graph, merged, graph.save(merged, prefix)


def steps_of(event: Any, graph: Graph, node: str) -> int:
    """The training step an event reports; 0 for anything else, also while the teachers draw."""
    data = event["data"]
    ours = event["type"] == "progress" and data["node"] == node
    steps = graph.prompt[node]["inputs"]["steps"]
    return data["value"] if ours and data["max"] == steps else 0


def run_until(server: ComfyServer, graph: Graph, node: str, step: int, act: Any) -> Result:
    """Run a graph and call `act` once when `node` reports `step`."""
    done: list[int] = []

    def watch(event: Any) -> None:
        if steps_of(event, graph, node) >= step and not done:
            done.append(step)
            act()

    result = server.run(graph.prompt, on_event=watch)
    assert done
    return result


def checkpoints(server: ComfyServer) -> list[Any]:
    return sorted((server.output / "ziplora" / "checkpoints").glob("*/lora.safetensors"))


def test_cancel_keeps_a_loadable_lora_and_resuming_gives_the_bit_identical_file(
    server: ComfyServer,
) -> None:
    graph, merged, saved = merge("cut101/m", seed=101)
    before = set(checkpoints(server))
    result = run_until(server, graph, merged, 7, server.interrupt)
    assert result.status == "interrupted"
    assert max(steps_of(e, graph, merged) for e in result.events) < STEPS
    (lora,) = set(checkpoints(server)) - before
    assert str(lora) in server.log()

    resumed = succeeded(server, graph)
    assert "resumed at" in report(resumed, merged)
    assert not lora.exists()
    whole_graph, _, whole = merge("whole101/m", seed=101)
    server.free()
    uncut = succeeded(server, whole_graph)
    cut_file, whole_file = saved_path(resumed, saved), saved_path(uncut, whole)
    assert cut_file != whole_file
    assert cut_file.read_bytes() == whole_file.read_bytes()


@pytest.mark.thorough
def test_cancelled_lora_loads_in_the_stock_loader(server: ComfyServer) -> None:
    graph, merged, _ = merge("cut/m", seed=103)
    before = set(checkpoints(server))
    run_until(server, graph, merged, 5, server.interrupt)
    (lora,) = set(checkpoints(server)) - before
    (server.output / "loras").mkdir(exist_ok=True)
    (server.output / "loras" / "rescued.safetensors").write_bytes(lora.read_bytes())
    graph = Graph()
    loaded = graph.stock_lora(graph.model, graph.clip, "rescued.safetensors")
    graph.render([loaded, 0], [loaded, 1], "rescued")
    missing = server.log().count("lora key not loaded")
    succeeded(server, graph)
    assert server.log().count("lora key not loaded") == missing


def test_stop_and_keep_returns_normally_with_what_was_learned(server: ComfyServer) -> None:
    graph, merged, saved = merge("stopped/m", seed=104, steps=400)
    answers = []

    def stop() -> None:
        with pytest.raises(PromptRejected) as refused:
            server.post("/ziplora/stop", {"node_id": "no such node"})
        assert refused.value.status == 404
        answers.append(server.post("/ziplora/stop", {"node_id": merged}))

    result = run_until(server, graph, merged, 5, stop)
    assert result.status == "success" and answers == [{"stopped": [merged]}]
    assert "stopped after step" in report(result, merged)
    assert saved_path(result, saved).exists()
    with pytest.raises(PromptRejected) as refused:
        server.post("/ziplora/stop", {})
    assert refused.value.status == 404 and refused.value.body == {"stopped": []}


@pytest.mark.parametrize("body", [[1], "stop", 3])
@pytest.mark.parametrize("route", ["stop", "save"])
def test_stop_and_save_routes_refuse_what_is_not_an_object(
    route: str, body: Any, server: ComfyServer
) -> None:
    with pytest.raises(PromptRejected) as refused:
        server.post(f"/ziplora/{route}", body)
    assert refused.value.status == 400


@pytest.mark.thorough
def test_same_seed_gives_the_same_file_bit_for_bit(server: ComfyServer) -> None:
    files = []
    for run, seed in enumerate((5, 5, 6)):
        server.free()
        graph, _, saved = merge(f"seed{run}/m", seed=seed, steps=5)
        files.append(saved_path(succeeded(server, graph), saved).read_bytes())
    assert files[0] == files[1] != files[2]


def test_equal_inputs_are_served_from_the_cache(server: ComfyServer) -> None:
    graph, merged, _ = merge("cached/m", seed=106, steps=3)
    succeeded(server, graph)
    assert merged not in succeeded(server, graph).executed


def test_progress_comes_with_every_step(server: ComfyServer) -> None:
    graph, merged, _ = merge("progress/m", seed=107)
    result = succeeded(server, graph)
    values = [step for e in result.events if (step := steps_of(e, graph, merged))]
    assert values == sorted(values) and values[-1] == STEPS and len(values) > 1
    assert any(e["type"] == "progress" and e["data"]["max"] > STEPS for e in result.events)
    messages = [e["data"] for e in result.events if e["type"] == "ziplora.training"]
    assert [s for m in messages for s in m["points"]["step"]] == list(range(1, STEPS + 1))
    assert {"step", "loss", "content", "style", "penalty"} <= set(messages[-1]["points"])
    last = messages[-1]
    assert (last["state"], last["step"], last["steps"]) == ("finished", STEPS, STEPS)
    assert last["memory"][0] <= last["memory"][1] and last["status"] == ""

    whole = server.get(f"/ziplora/training/{merged}")
    assert whole["points"]["step"] == list(range(1, STEPS + 1)) and whole["run"] == last["run"]
    listed = server.get("/ziplora/training")["runs"]
    assert [r["state"] for r in listed if r["run"] == last["run"]] == ["finished"]


def test_training_of_a_hundred_steps_a_second_sends_ten_messages_a_second_at_most(
    server: ComfyServer,
) -> None:
    graph, steps = Graph(), 400
    node = graph.node("SandboxPacedTraining", steps=steps, per_second=100)
    at: list[float] = []
    result = server.run(graph.prompt, on_event=lambda event: at.append(time.monotonic()))
    assert result.status == "success", result.error
    first, last = (
        next(n for n in order if result.events[n]["type"] == "ziplora.training")
        for order in (range(len(at)), reversed(range(len(at))))
    )
    between = last - first + len(result.previews)
    assert between <= 10 * (at[last] - at[first]) + 4  # the first and the last are not held back
    points = [e["data"]["points"] for e in result.events if e["type"] == "ziplora.training"]
    assert [s for p in points for s in p["step"]] == list(range(1, steps + 1))
    assert server.get(f"/ziplora/training/{node}")["step"] == steps


@pytest.mark.parametrize("path", ["999", "999?workflow=none", "999/samples/1", "1/samples/7"])
def test_training_route_of_what_is_not_known_answers_not_found(
    path: str, server: ComfyServer
) -> None:
    with pytest.raises(PromptRejected) as refused:
        server.get(f"/ziplora/training/{path}")
    assert refused.value.status == 404 and "error" in refused.value.body


def test_training_options_reach_the_loop(server: ComfyServer) -> None:
    graph = Graph()
    options = {
        "optimiser": "adamw", "schedule": "cosine", "warm_up_steps": 2, "batch": 2,
        "accumulation": 2, "gradient_clip": 0.5, "min_snr_gamma": 5.0, "checkpoint_every": 2,
        "early_stop": False, "held_out_draws": 0, "resume": "restart",
    }  # fmt: skip
    node = graph.out("TrainingOptions", **options)
    merged = graph.optimise(graph.pair(), options=node, memory="low", steps=5)
    graph.save(merged, "options/m")
    text = report(succeeded(server, graph), merged)
    assert "5 of 5 steps" in text and "memory=low" in text and "retention" not in text
