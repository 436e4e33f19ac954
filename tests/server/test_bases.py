"""Checkpoints of SDXL's relatives through the live server, in every node that takes a MODEL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sandbox import paths
from sandbox.server import ComfyServer

from .dreambooth.test_train import train as dreambooth
from .graph import STYLE, SUBJECT, Graph, succeeded
from .merging.test_find import find
from .plots.test_judge import judge
from .plots.test_look import drawing, flat, strength_grid
from .test_bad_input import message_of
from .unziplora.unziplora_graph import apply as apply_unziplora
from .unziplora.unziplora_graph import unzip

paths.use_comfyui()
from sandbox.relatives import save_relative  # noqa: E402

Task = Callable[[Graph], None]
SIDE = 64
SLIDER: dict[str, Any] = {
    "layers": "noxattn", "rank": 4, "alpha": 1.0, "steps": 1, "learning_rate": 1e-4,
    "resolution": SIDE, "seed": 0, "memory": "auto",
}  # fmt: skip
WINDOW = {"start_percent": 0.0, "end_percent": 1.0}


def look(graph: Graph, node: str, slot: int = 0) -> None:
    graph.node("PreviewAny", source=[node, slot])


def drawn(graph: Graph, node: str) -> None:
    graph.render([node, 0], graph.clip, "bases")


def train(graph: Graph) -> None:
    look(graph, dreambooth(graph, flat(graph, 0x804020), steps=1), 2)


def separate(graph: Graph) -> None:
    look(graph, unzip(graph, steps=4), 4)


def slide(graph: Graph) -> None:
    words = {"target": "a", "positive": "b", "negative": "c", "neutral": "", "preserve": ""}
    look(graph, graph.node(
        "TrainConceptSlider", model=graph.model, clip=graph.clip, guidance=4.0, action="enhance",
        trajectory="exact", **words, **SLIDER,
    ), 2)  # fmt: skip


def slide_from_pictures(graph: Graph) -> None:
    low, high = (flat(graph, colour) for colour in (0x804020, 0x208040))
    pairs = graph.out("ConceptSliderImagePairs", low_images=low, high_images=high, scale=1.0)
    look(graph, graph.node(
        "TrainConceptSliderFromImages", model=graph.model, clip=graph.clip, vae=graph.vae,
        pairs=pairs, positive="", neutral="", **SLIDER,
    ), 2)  # fmt: skip


def optimise(graph: Graph, **inputs: Any) -> None:
    look(graph, graph.optimise(graph.pair(), steps=1, **inputs), 3)


def solve(graph: Graph) -> None:
    joint = graph.text("a sks dog in watercolor style")
    optimise(graph, solver="closed_form", calibration_states=2, joint_conditioning=joint)


def merge(graph: Graph, **inputs: Any) -> None:
    look(graph, graph.direct(graph.pair(), **inputs), 2)


def calibrate(graph: Graph) -> None:
    prompts = {f"{c}_conditioning": graph.text(c) for c in ("content", "style")}
    merge(graph, method="rank_space", seed=0, width=SIDE, height=SIDE, **prompts)


def merged(graph: Graph) -> str:
    """A merge that another model has resolved."""
    return Graph.direct(on_sdxl(graph), graph.pair())


def on_sdxl(graph: Graph) -> Graph:
    """Continue the same prompt with the ordinary checkpoint."""
    other = Graph()
    (loader,) = other.prompt.values()
    other.prompt = graph.prompt
    node = other.node(loader["class_type"], **loader["inputs"])
    other.model, other.clip, other.vae = ([node, slot] for slot in range(3))
    return other


def apply(graph: Graph) -> None:
    drawn(graph, graph.apply(merged(graph)))


def apply_by_half(graph: Graph) -> None:
    drawn(graph, graph.apply(merged(graph), negative_strength=0.0))


def strengths(graph: Graph) -> None:
    grid = strength_grid(graph, merged(graph))
    graph.node("PreviewImage", images=[grid, 0])


def search(graph: Graph) -> None:
    look(graph, find(graph, merged(graph)), 5)


def tell(graph: Graph) -> None:
    look(graph, judge(graph, flat(graph, 0x804020)), 0)


def slider(graph: Graph) -> None:
    drawn(graph, graph.node("ConceptSlider", model=graph.model, slider=STYLE, scale=1.0, **WINDOW))


def sliders(graph: Graph) -> None:
    grid = graph.node(
        "SliderSweep", model=graph.model, vae=graph.vae, slider=STYLE, scales="1",
        **WINDOW, **drawing(graph),
    )  # fmt: skip
    graph.node("PreviewImage", images=[grid, 0])


def prune(graph: Graph) -> None:
    drawn(graph, graph.node("PruneLoRA", model=graph.model, lora=STYLE, prune=0.5, strength=1.0))


def bring_in(graph: Graph) -> None:
    look(graph, graph.node("ImportLoRA", model=graph.model, lora=SUBJECT), 1)


def apply_separated(graph: Graph) -> None:
    node = unzip(on_sdxl(graph), steps=4)
    drawn(graph, apply_unziplora(graph, [node, 0]))


def extract(graph: Graph) -> None:
    tuned = graph.out(
        "LoraLoaderModelOnly", model=graph.model, lora_name=SUBJECT, strength_model=1.0
    )
    look(graph, graph.node(
        "ExtractLoRA", model_tuned=tuned, model_base=graph.model, rank=4, layers="attention", seed=0
    ), 1)  # fmt: skip


TASKS: dict[str, Task] = {
    task.__name__: task
    for task in (
        train, separate, slide, slide_from_pictures, optimise, solve, merge, calibrate, apply,
        apply_by_half, strengths, search, tell, slider, sliders, prune, bring_in, apply_separated,
        extract,
    )
}  # fmt: skip


@pytest.fixture(scope="module")
def checkpoints(server: ComfyServer) -> Iterator[ComfyServer]:
    """A server with an inpainting checkpoint and the refiner."""
    files = {
        kind: server.models / "checkpoints" / f"{kind}.safetensors"
        for kind in ("inpaint", "refiner")
    }
    for kind, path in files.items():
        save_relative(path, kind)
    server.object_info()
    yield server
    for path in files.values():
        path.unlink()


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_inpainting_checkpoint_works_in_every_node(task: Task, checkpoints: ComfyServer) -> None:
    graph = Graph("inpaint.safetensors")
    task(graph)
    succeeded(checkpoints, graph)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_refiner_is_refused_by_name_in_every_node(task: Task, checkpoints: ComfyServer) -> None:
    graph = Graph("refiner.safetensors")
    task(graph)
    message = message_of(checkpoints, graph)
    assert "the SDXL refiner" in message and "Connect the SDXL base checkpoint" in message


@pytest.mark.parametrize("task", [train, separate, slide, slide_from_pictures])
def test_the_refiners_clip_is_refused_before_anything_is_encoded(
    task: Task, checkpoints: ComfyServer
) -> None:
    graph = Graph("refiner.safetensors")
    base = on_sdxl(graph)
    base.clip = graph.clip
    task(base)
    assert message_of(checkpoints, base).startswith("clip: found the CLIP of the SDXL refiner")
