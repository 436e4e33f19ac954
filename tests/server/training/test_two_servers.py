"""Two ComfyUIs with one output folder do not write one training's checkpoint in turn."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.server import ComfyServer, Result, fresh_base

from ..graph import report, saved_path
from .test_control import merge, run_until


@pytest.mark.thorough
def test_training_of_another_server_is_refused_by_name_and_then_continued(
    server: ComfyServer, tmp_path: Path
) -> None:
    graph, merged, saved = merge("two/m", seed=113, steps=5000)
    refused: list[Result] = []

    def meanwhile() -> None:
        refused.append(other.run(graph.prompt))
        server.post("/ziplora/stop", {})

    with ComfyServer(fresh_base(tmp_path), None, "--output-directory", str(server.output)) as other:
        stopped = run_until(server, graph, merged, 3, meanwhile)
        assert stopped.status == "success" and refused[0].status == "error"
        error = refused[0].error
        assert error and error["node_type"] == "ZipLoRAOptimize"
        said = f"the same training in the ComfyUI with process id {server.pid} on "
        assert said in error["exception_message"]
        continued = run_until(other, graph, merged, 1, lambda: other.post("/ziplora/stop", {}))
    assert "resumed at" in report(continued, merged)
    files = [saved_path(result, saved) for result in (stopped, continued)]
    assert files[0] != files[1] and all(file.exists() for file in files)
    assert not list((server.output / "ziplora" / "checkpoints").glob(".*.lock"))
