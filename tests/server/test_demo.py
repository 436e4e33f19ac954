"""`make demo`: its workflow runs on a fresh ComfyUI, and draws the same picture every time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from sandbox import demo
from sandbox.server import ComfyServer, fresh_base
from sandbox.workflow import to_prompt

SHORT = {
    "TrainDreamBoothLoRA": {"steps": 4},
    "TrainingOptions": {"held_out_draws": 2},
    "ZipLoRAOptimize": {"calibration_states": 4},
    "KSampler": {"steps": 3},
}


def run_demo(folder: Path) -> dict[str, bytes]:
    """Run the demo's workflow with few steps on a ComfyUI of its own; returns what it left."""
    workflow = json.loads(demo.WORKFLOW.read_text(encoding="utf-8"))
    with ComfyServer(fresh_base(folder)) as server:
        result = server.run(to_prompt(workflow, server.object_info(), SHORT))
        assert result.error is None, result.error
        made = [file for file in server.output.rglob("*") if file.is_file()]
        made += demo.side_by_side(made, server.output)
        return {file.relative_to(server.output).as_posix(): file.read_bytes() for file in made}


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return run_demo(tmp_path_factory.mktemp("first"))


@pytest.mark.thorough
def test_demo_leaves_picture_loras_and_workflow(left: dict[str, bytes], tmp_path: Path) -> None:
    loras = {name for name in left if name.startswith("loras/")}
    assert {name.split("/")[1].rsplit("_", 2)[0] for name in loras} == {
        "mini_subject", "mini_style", "mini_subject_in_style"
    }  # fmt: skip
    assert left["demo.json"] == demo.WORKFLOW.read_bytes()
    (tmp_path / "demo.png").write_bytes(left["demo.png"])
    picture = Image.open(tmp_path / "demo.png")
    assert picture.height > (1 + len(demo.ROWS)) * 128


@pytest.mark.thorough
def test_demo_twice_gives_identical_files(
    left: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    again = run_demo(tmp_path_factory.mktemp("second"))
    assert again.keys() == left.keys()
    assert [name for name in left if again[name] != left[name]] == []
