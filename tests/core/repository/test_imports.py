"""Imports go one way: nodes → comfy_adapter → the systems → training → files → lora → torch."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
CORE = ROOT / "ziplora_core"
MODULES = sorted(CORE.rglob("*.py"))
PURE = [path for path in MODULES if "comfy_adapter" not in path.parts]
ALLOWED = {"torch", "safetensors", "numpy", "einops", "matplotlib"}
ORDER = (
    *("errors", "lora", "files", "training", "ziplora", "dreambooth", "sliders", "unziplora"),
    *("merging", "plots", "comfy_adapter"),
)
"""The core's folders: each imports only those before it."""
ADAPTER = ("folders", "model", "data", "apply", "train", "tools")
"""The adapter's, likewise."""


def imported(path: Path) -> Iterator[tuple[str, ...]]:
    """The core's modules that one imports, as folders and file."""
    package = path.relative_to(CORE).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level <= len(package) + 1, f"{path.name} imports from outside the core"
            above = package[: len(package) + 1 - node.level]
            for alias in node.names:
                yield (*above, *(node.module or alias.name).split("."))


@pytest.mark.parametrize("path", PURE, ids=lambda p: str(p.relative_to(CORE)))
def test_core_module_imports_only_torch_and_the_core(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        else:
            continue
        roots = {name.partition(".")[0] for name in names}
        assert roots <= ALLOWED | sys.stdlib_module_names, roots


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(CORE)))
def test_module_imports_only_from_folders_before_its_own(path: Path) -> None:
    place = path.relative_to(CORE).with_suffix("").parts
    for target in imported(path):
        assert ORDER.index(target[0]) <= ORDER.index(place[0]), target
        if target[0] == place[0] == "comfy_adapter" and len(place) > 2:
            assert ADAPTER.index(target[1]) <= ADAPTER.index(place[1]), target
