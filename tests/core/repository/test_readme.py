"""The README and the pages of docs/, in every language: complete, no dead link, alike."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"
ENGLISH = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
TRANSLATED = ("README.md", "formats.md", "guide.md", "how_it_works.md", "nodes.md")
LANGUAGES = sorted(folder for folder in DOCS.iterdir() if (folder / "README.md").exists())
TRANSLATIONS = sorted(page for folder in LANGUAGES for page in folder.glob("*.md"))
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```\w*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
EQUATION = re.compile(r"^    \S.*$", re.MULTILINE)
HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
COMMENT = re.compile(r"\s+#.*$|<[^>]*>", re.MULTILINE)


def linked(page: Path) -> list[tuple[Path, str]]:
    """The files that the page links to, in order, each with the heading or an empty string."""
    found = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    parts = [unquote(link).partition("#") for link in found]
    return [((page.parent / path).resolve() if path else page, place) for path, _, place in parts]


def links(page: Path) -> list[Path]:
    return [path for path, _place in linked(page)]


def headings(page: Path) -> list[tuple[str, str]]:
    """Level and text of the page's headings; a comment in a block of commands is none."""
    return HEADING.findall(FENCE.sub("", page.read_text(encoding="utf-8")))


def anchors(page: Path) -> list[str]:
    """The names GitHub gives the page's headings."""
    kept = (re.sub(r"[^\w\- ]", "", text.lower()) for _level, text in headings(page))
    return [text.replace(" ", "-") for text in kept]


def original(page: Path) -> Path:
    """The English page of a translation; any other path as it is."""
    if page.parent not in LANGUAGES:
        return page
    return ROOT / page.name if page.name == "README.md" else DOCS / page.name


def places(page: Path) -> list[tuple[Path, int]]:
    """English targets of the page's links, in order, each with the number of the heading.

    Links between a page and its own translations are left out.
    """
    return [
        (original(path), anchors(path).index(place) if place else -1)
        for path, place in linked(page)
        if path == page or original(path) != original(page)
    ]


def structure(page: Path) -> dict[str, list[str]]:
    """List what no translation may change: heading levels, table rows, commands, equations."""
    text = page.read_text(encoding="utf-8")
    return {
        "headings": [level for level, _text in headings(page)],
        "rows": [str(line.count("|")) for line in text.splitlines() if line.startswith("|")],
        "fences": [COMMENT.sub("", block) for block in FENCE.findall(text)],
        "equations": EQUATION.findall(text),
    }


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [*ENGLISH, *TRANSLATIONS, ROOT / "CONTRIBUTING.md"], ids=named)
def test_readme_links_all_lead_to_something(page: Path) -> None:
    found = linked(page)
    assert [path for path, _place in found if not path.exists()] == []
    assert [(named(path), at) for path, at in found if at and at not in anchors(path)] == []


@pytest.mark.parametrize("page", TRANSLATIONS, ids=named)
def test_readme_translated_has_the_same_links_commands_and_equations(page: Path) -> None:
    english = original(page)
    assert page in links(english)
    assert english in links(page)
    assert structure(page) == structure(english)
    assert places(page) == places(english)


@pytest.mark.parametrize("folder", LANGUAGES, ids=named)
def test_readme_translated_comes_with_its_pages_which_link_to_each_other(folder: Path) -> None:
    pages = sorted(folder.glob("*.md"))
    assert {"README.md"} <= {page.name for page in pages} <= set(TRANSLATED)
    english = {original(page) for page in pages}
    for page in pages:
        assert (english - {original(page)}).isdisjoint(links(page))


def test_readme_and_docs_link_every_workflow_node_and_page() -> None:
    found = {path for page in ENGLISH for path in links(page)}
    shipped = {*(ROOT / "workflows").glob("*.json"), *(ROOT / "js" / "docs").glob("*/en.md")}
    assert sorted(named(path) for path in (shipped | set(ENGLISH)) - found) == []
    assert set(ENGLISH) - {ROOT / "README.md"} <= set(links(ROOT / "README.md"))
