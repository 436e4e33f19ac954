"""Files that a test puts into the server's folders, as a person does."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from sandbox.server import ComfyServer


@pytest.fixture
def put(server: ComfyServer) -> Iterator[Callable[[str, Any], str]]:
    """Put a file into the server's loras folder for one test: tensors, a list, or a copy."""
    written: list[Path] = []

    def write(name: str, content: Any) -> str:
        path = server.models / "loras" / name
        if isinstance(content, Path):
            shutil.copyfile(content, path)
        elif path.suffix == ".safetensors":
            safetensors.torch.save_file(content, path)
        else:
            torch.save(content, path)
        written.append(path)
        server.object_info()  # as a person's refresh does
        return name

    yield write
    for path in written:
        path.unlink(missing_ok=True)
