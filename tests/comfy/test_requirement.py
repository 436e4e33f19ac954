"""An older ComfyUI is refused with a sentence, and all documents name the same oldest version."""

from __future__ import annotations

import re

import pytest

from sandbox.matrix import ROWS
from sandbox.paths import ROOT
from ziplora_core.comfy_adapter.requirement import OLDEST, comfyui_version, require_comfyui
from ziplora_core.errors import ZipLoRAError


@pytest.mark.parametrize("found", ["0.20.1", "0.18.2", "v0.23.9", "0.3.75", "0.0"])
def test_require_older_comfyui_names_both_versions_and_the_remedy(found: str) -> None:
    sentence = rf"^ComfyUI: found version {found}, expected {OLDEST} or later\. Update ComfyUI"
    with pytest.raises(ZipLoRAError, match=sentence):
        require_comfyui(found)


@pytest.mark.parametrize("found", [OLDEST, f"v{OLDEST}", "0.24.1", "0.30.0", "1.0", "nightly"])
def test_require_other_comfyui_is_silent(found: str) -> None:
    require_comfyui(found)


def test_running_comfyui_has_a_version_that_is_allowed() -> None:
    assert re.match(r"\d+\.\d+", comfyui_version())
    require_comfyui(comfyui_version())


def test_oldest_comfyui_is_stated_once_and_tested() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.findall(r'requires-comfyui = "(.*)"', pyproject) == [f">={OLDEST}"]
    for readme in (
        ROOT / "README.md",
        *(ROOT / "docs" / name / "README.md" for name in ("vi", "zh")),
    ):
        assert f"| ComfyUI | {OLDEST}" in readme.read_text(encoding="utf-8")
    assert min(row.comfyui for row in ROWS if not row.refused) == OLDEST
