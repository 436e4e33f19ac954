"""Every help page has a picture, inputs with usual values, outputs, and signs of trouble."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[3] / "js" / "docs"
PAGES = sorted(DOCS.glob("*/*.md"))
SECTIONS = {
    "en": ("Inputs, with usual values", "Outputs", "Signs of trouble"),
    "zh": ("输入（括号内为常用值）", "输出", "出问题时"),
}
PICTURE = re.compile(r"^!\[(.+)\]\((.+)\)$", re.MULTILINE)
LARGEST = 60_000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_help_page_has_a_picture_and_the_sections_one_looks_for(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert [h for h in headings if h in SECTIONS[page.stem]] == list(SECTIONS[page.stem])
    words, path = PICTURE.findall(text)[0]
    assert path == f"{page.parent.name}/node.webp", "from js/docs, as the frontend looks for it"
    assert words
    assert 1_000 < (DOCS / path).stat().st_size <= LARGEST


def test_help_pages_come_in_every_language() -> None:
    assert {(p.parent.name, p.stem) for p in PAGES} == {
        (folder.name, language) for folder in DOCS.iterdir() for language in SECTIONS
    }
