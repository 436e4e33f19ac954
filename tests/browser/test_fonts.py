"""The browser tests have fonts of their own, and the sets of them differ where it matters."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Browser, Page

from .fonts import FONT_SETS, USUAL, in_every_font

SAMPLE = "".join(
    f'<p style="margin: 0; width: fit-content; font: 11px {family}">it will still fill a line</p>'
    for family in ("system-ui", "sans-serif", "monospace")
)
SIZES = "(found) => found.map((p) => [p.offsetWidth, p.offsetHeight])"


def test_font_sets_are_all_that_the_browser_has_and_differ_in_width_and_height(
    browsers: Callable[[str], Browser],
) -> None:
    sizes = {}
    for name, fonts in FONT_SETS.items():
        page = browsers(name).new_page()
        page.set_content(SAMPLE)
        assert families(page) == [fonts.sans_serif, fonts.sans_serif, fonts.monospace]
        sizes[name] = page.locator("p").evaluate_all(SIZES)
        page.close()
    for low, high in zip(sizes["dejavu"], sizes["space"], strict=True):
        assert high[1] >= 1.2 * low[1]
    for low, high in zip(sizes["dejavu"][:2], sizes["space"][:2], strict=True):
        assert high[0] >= 1.2 * low[0]  # monospace letters are as wide in almost every font


def test_browser_has_the_usual_fonts(browser: Browser) -> None:
    assert_has(browser, USUAL)


@in_every_font
def test_browser_has_the_fonts_that_a_test_names_also_after_another_test(
    browser: Browser, fonts: str
) -> None:
    assert_has(browser, fonts)


def assert_has(browser: Browser, fonts: str) -> None:
    page = browser.new_page()
    page.set_content(SAMPLE)
    assert families(page)[-1] == FONT_SETS[fonts].monospace
    page.close()


def families(page: Page) -> list[str]:
    """The font that each paragraph is drawn with."""
    session = page.context.new_cdp_session(page)
    session.send("DOM.enable")
    session.send("CSS.enable")
    root = session.send("DOM.getDocument")["root"]["nodeId"]
    found = session.send("DOM.querySelectorAll", {"nodeId": root, "selector": "p"})["nodeIds"]
    used = [session.send("CSS.getPlatformFontsForNode", {"nodeId": node}) for node in found]
    return [font["familyName"] for fonts in used for font in fonts["fonts"]]
