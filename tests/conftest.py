"""Import paths and markers for every test.

ComfyUI has a nodes.py and a server.py, this pack a nodes folder and the tests a server folder, so
the order of sys.path decides who finds what: ComfyUI first (only for tests that need it), the pack
last. Run `pytest` from the repository root; `python -m pytest` would put the root first.
"""

from __future__ import annotations

import gc
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from sandbox.server import ComfyServer

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
TIERS = ("core", "comfy", "accelerator", "server", "browser")


def load_package(name: str, folder: Path) -> ModuleType:
    """Import a package from its folder under a name of our choice, as ComfyUI imports packs."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
sys.path.append(str(ROOT))
for helper in ("sandbox", "miniworld", "quality", "bench", "card", "reliability"):
    load_package(helper, TESTS / helper)
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by its folder: core, comfy, accelerator, server or browser."""
    for item in items:
        tier = item.path.relative_to(TESTS).parts[0]
        if tier in TIERS:
            item.add_marker(tier)


def pytest_collection_finish() -> None:
    """Spare every later garbage collection what has been imported: half a second each."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def pack() -> ModuleType:
    """The pack, imported as ComfyUI imports it. Reach core types through it, or they double."""
    from sandbox.paths import use_comfyui

    use_comfyui()
    return load_package("ziplora", ROOT)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """One running ComfyUI for all server and browser tests, with an output folder of its own."""
    from sandbox.server import ComfyServer, fresh_base

    with ComfyServer(fresh_base(tmp_path_factory.mktemp("comfyui"))) as running:
        yield running
