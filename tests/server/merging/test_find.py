"""Find the Merge and Choose Merge through the live server."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
import pytest

from sandbox.server import ComfyServer, PromptRejected, Result

from ..graph import SUBJECT, Graph, Link, report, saved_path, succeeded
from ..plots.test_look import drawing, flat, pictures, vision
from ..test_bad_input import message_of
from .test_tools import deltas, metadata

STRENGTHS = "0.4/1, 1/0.4, 0.7/0.7"


def find(graph: Graph, merged: str, **inputs: Any) -> str:
    """FindMerge: outputs merged, negative_strength, found, sheet, csv, report."""
    settings = {
        **drawing(graph), "cfg": 2.0, "steps": 3, "strengths": STRENGTHS, "pictures": 8,
        "minutes": 0.0, "negative_strength": 0.0, **inputs,
    }  # fmt: skip
    return graph.node("FindMerge", model=graph.model, merged=[merged, 0], vae=graph.vae, **settings)


def choose(graph: Graph, found: str, choice: int = 0, **inputs: Any) -> str:
    """ChooseMerge: outputs merged, negative_strength, images."""
    return graph.node("ChooseMerge", found=[found, 2], choice=choice, **inputs)


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def shown_by(result: Result, node: str) -> dict[str, Any]:
    return result.outputs[node]["ziplora_merge_sheet"][0]


def test_found_merge_draws_at_one_what_the_search_drew(server: ComfyServer) -> None:
    graph = Graph()
    merged = graph.direct(graph.pair())
    node = find(graph, merged)
    applied = graph.node(
        "ApplyMergedLoRA", model=graph.model, merged=[node, 0], content_strength=1.0,
        style_strength=1.0, negative_strength=[node, 1],
    )  # fmt: skip
    sampler = drawing(graph) | {"cfg": 2.0, "steps": 3}
    sampled = graph.out(
        "KSampler", model=[applied, 0], latent_image=sampler.pop("latent"), denoise=1.0, **sampler
    )
    decoded = graph.out("VAEDecode", samples=sampled, vae=graph.vae)
    wanted = graph.node("PreviewImage", images=decoded)
    sheet = graph.node("PreviewImage", images=[node, 3])
    text = graph.node("PreviewAny", source=[node, 4])
    chosen = choose(graph, node)
    images = graph.node("PreviewImage", images=[chosen, 2])
    saved = graph.save(node, "found/m")
    result = succeeded(server, graph)

    rows = table(report(result, text))
    assert [row["place"] for row in rows] == ["1", "2", "3", "4"]
    assert sorted(row["pictures"] for row in rows) == ["1", "1", "3", "3"]
    assert {(row["content"], row["style"]) for row in rows} == {
        ("1", "1"), ("0.4", "1"), ("1", "0.4"), ("0.7", "0.7"),
    }  # fmt: skip
    assert {(row["kind"], row["negative"]) for row in rows} == {("merged", "0")}
    (as_it_is,) = (float(r["smaller"]) for r in rows if (r["content"], r["style"]) == ("1", "1"))
    assert float(rows[0]["smaller"]) >= as_it_is

    (by_hand,) = pictures(server, result.outputs[wanted])
    first, *others = pictures(server, result.outputs[images])
    assert np.abs(first.astype(int) - by_hand).max() <= 1 and len(others) == 2
    (drawn,) = pictures(server, result.outputs[sheet])
    assert drawn.shape[0] > 4 * 64 and drawn.shape[1] > 3 * 64
    rank = (float(rows[0]["content"]), float(rows[0]["style"]))
    assert metadata(saved_path(result, saved))["ziplora.strengths"] == "{:g} / {:g}".format(*rank)
    said = report(result, node)
    assert "merged: best at {:g} / {:g}".format(*rank) in said
    assert "8 pictures drawn, 4 × 1, then 2 × 2; seeds from 3, negative_strength 0" in said

    messages = [e["data"] for e in result.events if e["type"] == "ziplora.training"]
    last = messages[-1]
    assert (last["state"], last["step"], last["steps"]) == ("finished", 8, 8)
    assert last["samples"] == [4, 8] and last["status"].startswith("merged, best first: ")
    assert last["prepared"] == [72, 72]
    bars = [
        e["data"]["value"]
        for e in result.events
        if e["type"] == "progress" and e["data"]["node"] == node and e["data"]["max"] == 8
    ]
    assert bars[-1] == 8


def test_choosing_another_row_runs_only_that_node_and_gives_its_merge(server: ComfyServer) -> None:
    graph = Graph()
    node = find(graph, graph.direct(graph.pair()), seed=7)
    text = graph.node("PreviewAny", source=[node, 4])
    chosen = choose(graph, node)
    saved = graph.save(chosen, "chosen/m")
    result = succeeded(server, graph)
    rows = table(report(result, text))
    shown = shown_by(result, chosen)
    assert [row["number"] for row in shown["rows"]] == [1, 2, 3, 4] and not shown["blind"]
    assert [row["label"] for row in shown["rows"]] == [
        f"{row['place']}: {row['content']} / {row['style']}, {float(row['smaller']):.2f}"
        for row in rows
    ]
    files = pictures(server, {"images": shown["rows"]})
    assert len({file.tobytes() for file in files}) == 4

    whole = deltas(saved_path(result, saved))
    assert whole
    graph.prompt[chosen]["inputs"]["choice"] = 3
    other = succeeded(server, graph)
    assert node not in other.executed and chosen in other.executed
    path = saved_path(other, saved)
    wanted = f"{rows[2]['content']} / {rows[2]['style']}"
    assert metadata(path)["ziplora.strengths"] == wanted
    assert {n for n, d in deltas(path).items() if not d.equal(whole[n])} == set(whole)

    graph.prompt[chosen]["inputs"] |= {"choice": 0, "blind": True}
    blind = succeeded(server, graph)
    assert node not in blind.executed
    hidden = shown_by(blind, chosen)
    numbers = [row["number"] for row in hidden["rows"]]
    assert sorted(numbers) == [1, 2, 3, 4] and numbers != [1, 2, 3, 4] and hidden["blind"]
    assert {row["label"] for row in hidden["rows"]} == {""}
    again = pictures(server, {"images": hidden["rows"]})
    for number, picture in zip(numbers, again, strict=True):
        assert np.array_equal(picture, files[number - 1])


def test_stop_gives_the_best_so_far_and_cancel_ends_at_once(server: ComfyServer) -> None:
    for route, wanted in (("stop", "success"), ("cancel", "interrupted")):
        graph = Graph()
        node = find(graph, graph.direct(graph.pair()), pictures=400, seed=len(route))
        choose(graph, node)
        asked: list[int] = []

        def act(event: Any, node: str = node, route: str = route, asked: list[int] = asked) -> None:
            data = event["data"]
            ours = event["type"] == "ziplora.training" and data["node_id"] == node
            if ours and data["step"] >= 2 and not asked:
                asked.append(data["step"])
                if route == "stop":
                    server.post("/ziplora/stop", {"node_id": node})
                else:
                    server.interrupt()

        result = server.run(graph.prompt, on_event=act)
        assert result.status == wanted and asked
        last = [e["data"] for e in result.events if e["type"] == "ziplora.training"][-1]
        assert last["state"] == ("stopped" if route == "stop" else "cancelled")
        assert last["step"] < 400
        if route == "stop":
            assert f"stopped after {last['step']} of 400 pictures" in report(result, node)


def alone(graph: Graph, lora: str) -> Link:
    """The pictures that one LoRA draws alone, at the search's prompt and seeds."""
    loaded = graph.stock_lora(graph.model, graph.clip, lora)
    drawn: list[Link] = []
    for seed in range(3, 7):
        sampler = drawing(graph) | {"cfg": 2.0, "steps": 3, "seed": seed}
        latent = sampler.pop("latent")
        sampled = graph.out(
            "KSampler", model=[loaded, 0], latent_image=latent, denoise=1.0, **sampler
        )
        drawn.append(graph.out("VAEDecode", samples=sampled, vae=graph.vae))
    whole = drawn[0]
    for image in drawn[1:]:
        whole = graph.out("ImageBatch", image1=whole, image2=image)
    return whole


def test_two_kinds_are_judged_by_the_encoders(server: ComfyServer) -> None:
    graph = Graph()
    pair = graph.pair()
    node = find(
        graph, graph.direct(pair), pictures=16, steps=3,
        other_merged=[graph.direct(pair, method="norm_balance"), 0],
        clip_vision=vision(graph, "clip_vision"), style_images=alone(graph, "my_style.safetensors"),
        dino=vision(graph, "dinov2"), subject_images=alone(graph, SUBJECT),
    )  # fmt: skip
    text = graph.node("PreviewAny", source=[node, 4])
    result = succeeded(server, graph)
    rows = table(report(result, text))
    kinds = [row["kind"] for row in rows]
    assert sorted(kinds) == ["merged"] * 4 + ["other_merged"] * 4
    firsts = {row["kind"]: float(row["smaller"]) for row in reversed(rows)}
    assert float(rows[0]["smaller"]) == max(firsts.values())
    said = report(result, node)
    assert "judged by image encoders: subject by DINOv2" in said and "of each kind" in said


@pytest.mark.thorough
def test_bad_input_of_the_search_and_of_the_choice_is_named(server: ComfyServer) -> None:
    cases: list[tuple[Graph, str]] = []

    def case(words: str) -> tuple[Graph, str]:
        cases.append((Graph(), words))
        return cases[-1][0], cases[-1][0].direct(cases[-1][0].pair())

    def searched(words: str, **inputs: Any) -> None:
        graph, merged = case(words)
        choose(graph, find(graph, merged, **inputs))

    searched("strengths: found '0.9', expected pairs", strengths="0.9, 0.7")
    searched("strengths: found '', expected pairs", strengths="")
    searched("pictures: found 3 for 4 pairs of strengths", pictures=3)
    graph, merged = case("merged: found a merge in which content and style are one LoRA")
    choose(graph, find(graph, graph.direct(graph.pair(), method="svd", rank=4)))
    graph, merged = case("style_images: found nothing, with clip_vision given")
    choose(graph, find(graph, merged, clip_vision=vision(graph, "clip_vision")))
    graph, merged = case("dino: found nothing, with subject_images given")
    choose(graph, find(graph, merged, subject_images=flat(graph, 9)))
    graph, merged = case("choice: found 5, expected a row from 1 to 4")
    choose(graph, find(graph, merged), 5)
    for graph, words in cases:
        assert words in message_of(server, graph)

    graph = Graph()
    choose(graph, find(graph, graph.direct(graph.pair()), pictures=0))
    with pytest.raises(PromptRejected) as refused:
        server.queue(graph.prompt)
    assert refused.value.status == 400
