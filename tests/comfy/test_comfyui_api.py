"""The canary: each name of ComfyUI that the pack relies on is there, with its parameters.

A newer ComfyUI that has renamed one fails here with a sentence, before a training fails with a
TypeError.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comfy.sd
import comfyui_version
import pytest
from comfy.model_patcher import ModelPatcher

from sandbox import tiny
from sandbox.comfyui_api import ATTRIBUTES, DOCUMENTED, INTERNAL, METHODS, PUBLIC
from sandbox.paths import ROOT

SOURCES = [ROOT / "__init__.py", *(ROOT / "nodes").rglob("*.py")]
SOURCES += (ROOT / "ziplora_core" / "comfy_adapter").rglob("*.py")
ROOTS = {"comfy", "comfy_api", "comfy_execution", "comfy_extras", "comfyui_version"}
ROOTS |= {"execution", "folder_paths", "latent_preview", "node_helpers", "nodes", "server"}
NAMES = (*PUBLIC, *DOCUMENTED, *INTERNAL)
CALLS = [f"{kind}.{call}" for kind, calls in METHODS.items() for call in calls]
OF_AN_INSTANCE = ("server.PromptServer.instance.", "server.PromptServer.")


def split(entry: str) -> tuple[str, list[str]]:
    """Split `a.b(c, d)` into its path and its parameters."""
    path, _, rest = entry.partition("(")
    return path, re.findall(r"\w+", rest)


def found(path: str) -> Any:
    """Import what a path names, or fail with a sentence."""
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if not hasattr(value, part):
                break
            value = getattr(value, part)
        else:
            return value
    return pytest.fail(gone(path))


def gone(what: str) -> str:
    version = comfyui_version.__version__
    return (
        f"ComfyUI {version} has no {what}, which this pack relies on. docs/versions.md says what "
        "for: mend its callers, and tests/sandbox/comfyui_api.py."
    )


@pytest.mark.parametrize("entry", (*NAMES, *CALLS))
def test_comfyui_has_what_the_pack_calls(entry: str, prompt_server: None) -> None:
    path, wanted = split(entry)
    value = found(path)
    if not wanted:
        return
    parameters = inspect.signature(value).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    missing = [name for name in wanted if name not in parameters and not takes_any]
    assert not missing, gone(f"parameter {', '.join(missing)} of {path}")


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_comfyui_objects_have_what_the_pack_reads(
    name: str, model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    first, *others = name.split(".")
    value: Any = {"MODEL": model, "CLIP": clip, "VAE": tiny.tiny_vae()}[first]
    for other in others:
        value = getattr(value, other)
    for attribute in ATTRIBUTES[name]:
        each = value
        for part in attribute.split("."):
            assert hasattr(each, part), gone(f"{attribute} on {name}")
            each = getattr(each, part)


def test_list_has_every_name_that_the_source_imports() -> None:
    listed = {split(entry)[0] for entry in NAMES}
    used = {name for path in SOURCES for name in imported(path)}
    for name in used:
        known = name in listed or any(entry.startswith(f"{name}.") for entry in listed)
        known |= name.startswith(OF_AN_INSTANCE)
        assert known, f"{name} is used but not listed in tests/sandbox/comfyui_api.py"


def imported(path: Path) -> Iterator[str]:
    """The dotted names of ComfyUI in a file, as long as they are written."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level and root(node.module) in ROOTS:
            names |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
        elif isinstance(node, ast.Import):
            names |= {root(a.name): root(a.name) for a in node.names if root(a.name) in ROOTS}
    yield from (name for name in names.values() if "." in name)
    inner: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in inner:
            parts, value = [], node
            while isinstance(value, ast.Attribute):
                parts.append(value.attr)
                value = value.value
                inner.add(id(value))
            if isinstance(value, ast.Name) and value.id in names:
                yield ".".join([names[value.id], *reversed(parts)])


def root(module: str | None) -> str:
    return (module or "").partition(".")[0]


def test_everything_listed_is_used() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)
    listed = [split(call)[0].rpartition(".")[2] for call in (*NAMES, *CALLS)]
    listed += [name.rpartition(".")[2] for names in ATTRIBUTES.values() for name in names]
    unused = {name for name in listed if not re.search(rf"\b{name}\b", source)}
    assert not unused


def test_document_shows_every_name() -> None:
    document = (ROOT / "docs" / "versions.md").read_text(encoding="utf-8")
    last = {split(entry)[0].rpartition(".")[2] for entry in (*DOCUMENTED, *INTERNAL, *CALLS)}
    assert not {name for name in last if not re.search(rf"\b{name}\b", document)}
