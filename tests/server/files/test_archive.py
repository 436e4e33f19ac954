"""The archive for the ComfyUI Registry: it has what a person needs, and nothing else."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest

from sandbox import archive
from sandbox.overrides import OVERRIDES
from sandbox.server import ComfyServer, fresh_base

from ..test_workflows import prompt_of

MOST_BYTES = 3 * 2**20
SUSPECT = re.compile(r"subprocess|os\.system|\beval\(|\bexec\(|pip install", re.IGNORECASE)
"""Patterns that the Registry's scanner looks for in programs."""


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "ziplora.zip"
    archive.write_archive(path)
    return path


def test_archive_is_small_and_has_no_tests_weights_or_pictures_of_the_documentation(
    packed: Path,
) -> None:
    assert packed.stat().st_size < MOST_BYTES
    with zipfile.ZipFile(packed) as archived:
        names = archived.namelist()
        programs = [name for name in names if name.endswith(".py")]
        found = [name for name in programs if SUSPECT.search(archived.read(name).decode())]
    assert found == []
    tops = {name.partition("/")[0] for name in names}
    assert tops >= {
        *("__init__.py", "LICENSE", "README.md", "SECURITY.md", "pyproject.toml"),
        *("requirements.txt", "docs", "js", "locales", "nodes", "subgraphs", "workflows"),
        "ziplora_core",
    }
    assert not tops & {"tests", "Makefile", "CONTRIBUTING.md", ".ci", ".git", ".github", ".sandbox"}
    assert not {Path(name).suffix for name in names} & {".safetensors", ".pt", ".pyc"}
    assert [name for name in names if name.startswith("docs/") and not name.endswith(".md")] == []


def test_fresh_comfyui_with_nothing_but_the_archive_has_every_node_and_draws(
    packed: Path, tmp_path: Path, server: ComfyServer
) -> None:
    base = fresh_base(tmp_path)
    pack = base / "custom_nodes" / "ziplora"
    pack.unlink()
    with zipfile.ZipFile(packed) as archived:
        archived.extractall(pack)
    usual = {key for key, said in server.object_info().items() if _is_ours(said)}
    with ComfyServer(base) as fresh:
        assert {key for key, said in fresh.object_info().items() if _is_ours(said)} == usual
        result = fresh.run(prompt_of("08 Merge without training", fresh, OVERRIDES))
        assert result.status == "success", result.error


def _is_ours(said: dict[str, str]) -> bool:
    return said["category"].startswith("ZipLoRA/")
