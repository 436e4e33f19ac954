"""A merge as half of another pair, and a merge by block, through the live server."""

from __future__ import annotations

from sandbox.server import ComfyServer

from ..graph import (
    STYLE,
    SUBJECT,
    Graph,
    assert_close,
    report,
    saved_latent,
    saved_path,
    succeeded,
)


def test_merge_as_content_of_another_pair_equals_three_chained_stock_loaders(
    server: ComfyServer,
) -> None:
    graph = Graph()
    two = graph.direct(graph.pair(content_strength=0.9, style_strength=0.6))
    pair = graph.pair("None", SUBJECT, content_lora_model=[two, 1], style_strength=-0.5)
    applied = graph.apply(graph.direct(pair))
    ours = graph.render([applied, 0], [applied, 1], "ours")
    first = graph.stock_lora(graph.model, graph.clip, SUBJECT, 0.9)
    second = graph.stock_lora([first, 0], [first, 1], STYLE, 0.6)
    third = graph.stock_lora([second, 0], [second, 1], SUBJECT, -0.5)
    stock = graph.render([third, 0], [third, 1], "stock")
    result = succeeded(server, graph)
    assert_close(saved_latent(server, result, ours), saved_latent(server, result, stock))


def test_saved_merge_is_learned_with_a_third_lora(server: ComfyServer) -> None:
    graph = Graph()
    saved = graph.save(graph.direct(graph.pair()), "two")
    name = str(saved_path(succeeded(server, graph), saved).relative_to(server.output / "loras"))

    graph = Graph()
    loaded = graph.node("LoadMergedLoRA", merged_lora=name)
    pair = graph.pair("None", STYLE, content_lora_model=[loaded, 1])
    optimised = graph.optimise(
        pair,
        solver="closed_form_then_adam",
        calibration_states=4,
        joint_conditioning=graph.text("sks dog in watercolor style"),
    )
    applied = graph.apply(optimised)
    graph.render([applied, 0], [applied, 1], "three")
    said = report(succeeded(server, graph), optimised)
    assert "closed form: 2 passes over 4 + 4 + 4 calibration samples" in said
    assert "at the joint prompt, against both LoRAs at 0.9 and 0.7" in said
    assert "‖merged‖ / ‖direct‖" in said and "WARNING" not in said


def test_blocks_of_apply_weigh_content_and_style_apart(server: ComfyServer) -> None:
    """With blocks that leave no style anywhere, the content LoRA is what remains."""
    graph = Graph()
    merged = graph.direct(graph.pair())
    rows = "output_blocks 0.5 0\n* 0.5 0  # everywhere else, too"
    by_block = graph.apply(merged, block_preset="all", blocks=rows)
    ours = graph.render([by_block, 0], graph.clip, "ours")
    single = graph.stock_lora(graph.model, graph.clip, SUBJECT, 0.5)
    stock = graph.render([single, 0], graph.clip, "stock")
    wrong = graph.node(
        "ApplyMergedLoRA", model=graph.model, merged=[merged, 0],
        content_strength=1.0, style_strength=1.0, blocks="output_blocks one",
    )  # fmt: skip
    result = succeeded(server, graph)
    assert_close(saved_latent(server, result, ours), saved_latent(server, result, stock))

    graph.render([wrong, 0], graph.clip, "wrong")
    failed = server.run(graph.prompt)
    assert failed.error is not None
    assert "blocks: found “output_blocks one”" in failed.error["exception_message"]
