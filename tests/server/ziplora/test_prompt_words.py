"""ZipLoRA Optimize says which prompt does not ask for what its LoRA has learned."""

from __future__ import annotations

import pytest

from sandbox.server import ComfyServer

from ..graph import STYLE, SUBJECT, Graph, report, succeeded

RIGHT = {
    "content": "a photo of sks dog",
    "style": "a cat in watercolor style",
    "joint": "a sks dog in watercolor style",
}


def warnings(server: ComfyServer, loras: tuple[str, str] = (SUBJECT, STYLE), **other: str) -> str:
    """Learn a merge with some other prompts than `RIGHT`; return the report's first lines."""
    graph = Graph()
    prompts = {
        f"{name}_conditioning": graph.text(text) for name, text in {**RIGHT, **other}.items()
    }
    optimised = graph.optimise(
        graph.pair(*loras), drawn=True, solver="closed_form", calibration_states=2, passes=1,
        **prompts,
    )  # fmt: skip
    graph.save(optimised, "words")
    said = report(succeeded(server, graph), optimised).splitlines()
    return "\n".join(line for line in said if line.startswith("WARNING") and "prompt" in line)


def test_prompts_with_the_trigger_words_have_no_warning(server: ComfyServer) -> None:
    assert warnings(server) == ""


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"content": " "}, "WARNING: the content prompt is empty"),
        ({"style": "a cat"}, "style prompt “a cat” has none of the trigger words of my_style"),
        ({"joint": "a cat"}, "joint prompt “a cat” has none of the trigger words of my_subject"),
    ],
    ids=["empty", "style", "joint"],
)
def test_prompt_without_what_its_lora_has_learned_is_named(
    server: ComfyServer, other: dict[str, str], said: str
) -> None:
    assert said in warnings(server, **other)


def test_loras_that_are_swapped_are_seen_by_their_prompts(server: ComfyServer) -> None:
    said = warnings(server, (STYLE, SUBJECT))
    assert "content prompt “a photo of sks dog” has none of the trigger words of my_style" in said
    assert "of my_subject.safetensors: sks dog" in said
