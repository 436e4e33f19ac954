"""Imports go one way: nodes → comfy_adapter → core → torch."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "ziplora_core"
PURE = sorted(p for p in CORE.rglob("*.py") if "comfy_adapter" not in p.parts)
ALLOWED = {"torch", "safetensors", "numpy", "einops", "matplotlib"}


@pytest.mark.parametrize("path", PURE, ids=lambda p: str(p.relative_to(CORE)))
def test_core_module_imports_only_torch_and_the_core(path: Path) -> None:
    import sys

    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        elif isinstance(node, ast.ImportFrom):
            depth = len(path.relative_to(CORE).parts)
            assert node.level <= depth, f"{path.name} imports from outside the core"
            assert not (node.module or "").startswith("comfy_adapter")
            continue
        else:
            continue
        roots = {name.partition(".")[0] for name in names}
        assert roots <= ALLOWED | sys.stdlib_module_names, roots
