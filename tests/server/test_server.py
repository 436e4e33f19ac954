"""The sandbox's server is the real one: it starts with the pack and runs or refuses prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sandbox.server import ComfyServer, PromptRejected, ServerError, fresh_base


def test_server_start_offers_stock_nodes_and_tiny_files(server: ComfyServer) -> None:
    nodes = server.object_info()
    checkpoints = nodes["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0]
    tiny = {"mini_sdxl", "my_finetuned_sdxl", "sd_xl_base_1.0"}
    assert {f"{name}.safetensors" for name in tiny} <= set(checkpoints)  # other tests add some
    assert "IMPORT FAILED" not in server.log()


@pytest.mark.thorough
def test_server_broken_pack_fails_with_its_log(tmp_path: Path) -> None:
    base = fresh_base(tmp_path)
    broken = base / "custom_nodes" / "broken"
    broken.mkdir()
    (broken / "__init__.py").write_text("import a_module_that_is_not_there\n")
    with pytest.raises(ServerError, match="a_module_that_is_not_there"), ComfyServer(base):
        pass


def test_run_stock_workflow_saves_an_image(
    server: ComfyServer, stock_prompt: dict[str, Any]
) -> None:
    result = server.run(stock_prompt)
    assert (result.status, result.error) == ("success", None)
    (image,) = result.outputs["7"]["images"]
    assert (server.output / image["filename"]).stat().st_size > 500
    assert [e["data"]["value"] for e in result.events if e["type"] == "progress"][-1] == 2


def test_free_after_run_executes_every_node_again(
    server: ComfyServer, stock_prompt: dict[str, Any]
) -> None:
    server.run(stock_prompt)
    assert "5" not in server.run(stock_prompt).executed
    server.free()
    assert "5" in server.run(stock_prompt).executed


def test_queue_missing_input_is_rejected_with_its_name(
    server: ComfyServer, stock_prompt: dict[str, Any]
) -> None:
    del stock_prompt["5"]["inputs"]["model"]
    with pytest.raises(PromptRejected) as rejection:
        server.run(stock_prompt)
    assert rejection.value.status == 400
    assert "required_input_missing" in str(rejection.value.body["node_errors"]["5"])


def test_run_failing_node_reports_its_error(
    server: ComfyServer, stock_prompt: dict[str, Any]
) -> None:
    damaged = server.models / "checkpoints" / "damaged.safetensors"
    damaged.write_bytes(b"not a checkpoint")
    stock_prompt["1"]["inputs"]["ckpt_name"] = damaged.name
    try:
        result = server.run(stock_prompt)
    finally:
        damaged.unlink()
    assert result.status == "error"
    assert result.error is not None and result.error["node_id"] == "1"


def test_interrupt_while_sampling_ends_the_run(
    server: ComfyServer, stock_prompt: dict[str, Any]
) -> None:
    stock_prompt["5"]["inputs"] |= {"steps": 2000, "seed": 9}
    asked: list[Any] = []

    def interrupt_once(event: Any) -> None:
        if event["type"] == "progress" and not asked:
            asked.append(event)
            server.interrupt()

    assert server.run(stock_prompt, on_event=interrupt_once).status == "interrupted"
