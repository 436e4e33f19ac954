"""Judge Pictures through the live server."""

from __future__ import annotations

from typing import Any

from sandbox.server import ComfyServer

from ..graph import SUBJECT, Graph, Link, report, succeeded
from ..test_bad_input import message_of
from .test_look import LIGHT, drawing, flat, pictures, strength_grid, vision


def judge(graph: Graph, images: Link, pair: str | None = None, **inputs: Any) -> str:
    settings = {**drawing(graph), "calibration_pictures": 2, "draws": 2}
    del settings["latent"]
    return graph.node(
        "JudgePictures", model=graph.model, pair=[pair or graph.pair(), 0], vae=graph.vae,
        images=images, **{**settings, **inputs},
    )  # fmt: skip


def test_grid_is_judged_picture_by_picture_beside_the_encoders_scores(
    server: ComfyServer,
) -> None:
    graph = Graph()
    pair = graph.pair()
    grid = strength_grid(graph, graph.direct(pair), style_strengths="1")
    node = judge(
        graph, [grid, 1], pair, clip_vision=vision(graph, "clip_vision"),
        style_images=flat(graph, 0x804020), dino=vision(graph, "dinov2"),
        subject_images=graph.out("LoadTrainingImages", folder="ziplora_subject"), theme="light",
    )  # fmt: skip
    shown = [graph.node("PreviewAny", source=[node, slot]) for slot in (0, 1, 3)]
    table = graph.node("PreviewImage", images=[node, 2])
    bars: list[tuple[int, int]] = []

    def on_event(event: Any) -> None:
        if event["type"] == "progress" and event["data"]["node"] == node:
            bars.append((event["data"]["value"], event["data"]["max"]))

    result = succeeded(server, graph, on_event=on_event)
    subject, style, csv = (report(result, n) for n in shown)
    heading, *rows, means = (line.split(",") for line in csv.splitlines())
    assert heading == ["picture", "subject", "style", "smaller", "CLIP-I", "DINOv2"]
    assert [row[0] for row in rows] == ["1", "2"] and rows[0][1:3] != rows[1][1:3]
    assert means[:3] == ["mean", f"{float(subject):.7f}", f"{float(style):.7f}"]
    assert all(float(row[3]) == min(map(float, row[1:3])) for row in rows)
    said = report(result, node)
    assert "2 draws a picture; UNet evaluations: 6 a picture, 48 in all" in said
    assert f"2 pictures each of the base model, of {SUBJECT} alone" in said
    assert said.endswith("cannot be compared") and "never of quality" in said
    assert bars[-1] == (48 + 6 * 2 * 2, 48 + 6 * 2 * 2)
    (drawn,) = pictures(server, result.outputs[table])
    assert drawn.shape[1] == 1024 and tuple(drawn[0, 0]) == LIGHT


def test_bad_input_of_judge_pictures_is_named(server: ComfyServer) -> None:
    cases: list[tuple[Graph, str]] = []

    def case(words: str) -> Graph:
        cases.append((Graph(), words))
        return cases[-1][0]

    graph = case("images: found 60 × 64 pixels, expected pictures of one size")
    judge(graph, graph.out("EmptyImage", width=60, height=64, batch_size=1, color=9))
    graph = case(f"pair: found the same LoRA twice ({SUBJECT} and {SUBJECT})")
    judge(graph, flat(graph, 9), graph.pair(SUBJECT, SUBJECT))
    graph = case("style_images: found nothing, with clip_vision given")
    judge(graph, flat(graph, 9), clip_vision=vision(graph, "clip_vision"))
    graph = case("positive: found 2 entries")
    both = graph.out(
        "ConditioningCombine",
        conditioning_1=graph.text("a dog"),
        conditioning_2=graph.text("a cat"),
    )
    judge(graph, flat(graph, 9), positive=both)
    for graph, words in cases:
        assert words in message_of(server, graph)
