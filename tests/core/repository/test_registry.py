"""The Registry finds the icon and the banner where pyproject.toml says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[3]
MAIN = "https://raw.githubusercontent.com/ziplora/ziplora/main/"


@pytest.mark.parametrize(("name", "size"), [("Icon", (400, 400)), ("Banner", (1260, 540))])
def test_picture_of_the_registry_is_in_the_repository_and_of_its_size(
    name: str, size: tuple[int, int]
) -> None:
    """The Registry takes square icons of 400 pixels at most, and banners of 21:9."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    address = re.search(rf'^{name} = "(.+)"$', project, re.MULTILINE)
    assert address and address[1].startswith(MAIN)
    with Image.open(ROOT / address[1].removeprefix(MAIN)) as picture:
        assert picture.size == size
