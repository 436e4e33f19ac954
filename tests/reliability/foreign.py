"""Modules of the tests' folders `comfy` and `server`, under names that are not ComfyUI's."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from sandbox.paths import ROOT


def tests_module(tier: str, name: str) -> Any:
    """Import the module `name` of tests/`tier`, e.g. `train.training_nodes` of `comfy`."""
    package = f"{tier}_tests"
    if package not in sys.modules:
        sys.modules[package] = ModuleType(package)
        sys.modules[package].__path__ = [str(ROOT / "tests" / tier)]
    return importlib.import_module(f"{package}.{name}")
