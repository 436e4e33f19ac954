"""The README in every language: the same links, commands and figures, and no dead link."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENGLISH = ROOT / "README.md"
TRANSLATIONS = sorted((ROOT / "docs").glob("*/README.md"))
LINK = re.compile(r"\]\(([^)#\s]+)\)")
FENCE = re.compile(r"^```\w*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
EQUATION = re.compile(r"^    \S.*$", re.MULTILINE)
HEADING = re.compile(r"^(#+) ", re.MULTILINE)
COMMENT = re.compile(r"\s+#.*$|<[^>]*>", re.MULTILINE)


def links(page: Path) -> list[Path]:
    """Where the page's links to files lead, in order."""
    found = LINK.findall(page.read_text(encoding="utf-8"))
    return [(page.parent / link).resolve() for link in found if "://" not in link]


def structure(page: Path) -> dict[str, list[str]]:
    """What no translation may change: levels of headings, table rows, commands, equations."""
    text = page.read_text(encoding="utf-8")
    return {
        "headings": HEADING.findall(text),
        "rows": [str(line.count("|")) for line in text.splitlines() if line.startswith("|")],
        "fences": [COMMENT.sub("", block) for block in FENCE.findall(text)],
        "equations": EQUATION.findall(text),
    }


@pytest.mark.parametrize("page", [ENGLISH, *TRANSLATIONS], ids=lambda page: page.parent.name)
def test_readme_links_all_lead_to_something(page: Path) -> None:
    assert [link for link in links(page) if not link.exists()] == []


@pytest.mark.parametrize("page", TRANSLATIONS, ids=lambda page: page.parent.name)
def test_readme_translated_has_the_same_links_commands_and_equations(page: Path) -> None:
    assert page in links(ENGLISH)
    assert ENGLISH in links(page)
    assert structure(page) == structure(ENGLISH)
    assert [link for link in links(page) if link != ENGLISH] == [
        link for link in links(ENGLISH) if link not in TRANSLATIONS
    ]
