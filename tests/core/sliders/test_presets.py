"""The presets: every family of the paper, usable, and written out on their help pages."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path

import pytest

from ziplora_core.sliders.options import TextSliderSettings
from ziplora_core.sliders.presets import PRESETS
from ziplora_core.sliders.text_objective import concepts

PAGES = Path(__file__).parents[3] / "js" / "docs" / "SliderPrompts"


def test_presets_have_every_family() -> None:
    assert {"age", "smile", "details", "fix hands", "weather", "season"} <= set(PRESETS)
    assert [name for name in PRESETS if name.endswith("style")]


@pytest.mark.parametrize("name", PRESETS)
def test_preset_has_two_ends(name: str) -> None:
    chosen = PRESETS[name]
    settings = TextSliderSettings(
        target=chosen.target, positive=chosen.positive, negative=chosen.negative,
        preserve=chosen.preserve,
    )  # fmt: skip
    for concept in concepts(settings):
        assert len({concept.positive, concept.negative, concept.neutral}) == 3


@pytest.mark.parametrize("language", ["en", "zh"])
def test_help_page_shows_every_preset(language: str) -> None:
    page = (PAGES / f"{language}.md").read_text(encoding="utf-8")
    for name, preset in PRESETS.items():
        prompts = [text.replace("\n", ", ") or "–" for text in astuple(preset)]
        assert f"| {' | '.join([name, *prompts])} |\n" in page, name
