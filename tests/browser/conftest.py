"""Tests in Debian's Chromium, driven by playwright against the running `server`."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from sandbox.server import ComfyServer
from sandbox.turns import turn

from .fonts import USUAL, write_configuration
from .pages import NEW_BLANK_WORKFLOW, RENDERERS, SET_VUE, Said, is_ours, listen

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
READY = """
    window.app?.graph && window.app.extensionManager && !document.getElementById("splash-loader")
"""

expect.set_options(timeout=30_000)  # other tests run beside these


def pytest_itemcollected(item: pytest.Item) -> None:
    """Leave a test of both renderers with one of them, and that with its own set of fonts: low
    letters in Nodes 2.0, wide ones on the canvas; a test of none has the wide ones. Which renderer
    follows from the test's name. The others are for `make thorough`."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    renderer, fonts = parameters.get("renderer"), parameters.get("fonts")
    (its_own,) = turn(item.name, sorted(RENDERERS), len(RENDERERS))
    its_fonts = "dejavu" if renderer == "vue" else "space"
    if renderer not in (None, its_own) or fonts not in (None, its_fonts):
        item.add_marker("thorough")


@pytest.fixture(scope="session")
def browsers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Browser]]:
    """One Chromium for each set of fonts, by its name; without Chromium, browser tests are skipped,
    and in CI they fail."""
    if not os.path.exists(CHROMIUM):
        message = "no Chromium: install the system package `chromium` to run the browser tests"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:

        @functools.cache
        def launch(fonts: str) -> Browser:
            configuration = write_configuration(fonts, tmp_path_factory.mktemp(fonts))
            return playwright.chromium.launch(
                executable_path=CHROMIUM,
                args=FLAGS,
                env={**os.environ, "FONTCONFIG_FILE": str(configuration)},
                ignore_default_args=["--hide-scrollbars"],  # a person sees them
            )

        yield launch


@pytest.fixture(scope="module")
def fonts(request: pytest.FixtureRequest) -> str:
    """The set of fonts that the browser has; tests of `@in_every_font` have each in turn."""
    return getattr(request, "param", USUAL)


@pytest.fixture(scope="module")
def browser(browsers: Callable[[str], Browser], fonts: str) -> Browser:
    """Chromium, with one set of fonts."""
    return browsers(fonts)


@pytest.fixture
def page(browser: Browser, server: ComfyServer) -> Iterator[Page]:
    """The loaded ComfyUI page, as for someone who has been here before: no template chooser."""
    with open_page(browser, server) as tab:
        yield tab


@pytest.fixture(scope="module")
def long_open_page(browser: Browser, server: ComfyServer) -> Iterator[Page]:
    """One page for tests that only drop and look: loading it takes longer than they do."""
    with open_page(browser, server) as tab:
        yield tab


@contextmanager
def open_page(
    browser: Browser,
    server: ComfyServer,
    prepare: Callable[[Page], None] = lambda page: None,
    url: str = "",
    **screen: Any,
) -> Iterator[Page]:
    """Load ComfyUI in a tab with a profile of its own, which is to say nothing of the pack.

    Args:
        prepare: given the page while it is empty.
        url: another way to the server than its own address.
        screen: what the browser opens the page on, e.g. `has_touch`.
    """
    server.post("/settings", {"Comfy.TutorialCompleted": True})
    tab = browser.new_page(viewport={"width": 1600, "height": 1000}, **screen)
    said: list[Said] = []
    listen(tab, said)
    try:
        prepare(tab)
        tab.goto(url or server.url)
        tab.wait_for_function(READY, timeout=60_000)
        yield tab
    finally:
        tab.close()
    assert [line for line in said if is_ours(line)] == []


@pytest.fixture(scope="module")
def tab(browser: Browser, server: ComfyServer) -> Iterator[Page]:
    """One page for all that is only looked at."""
    with open_page(browser, server) as page:
        yield page
        page.evaluate(SET_VUE, False)


@pytest.fixture(params=RENDERERS)
def renderer(request: pytest.FixtureRequest, tab: Page) -> str:
    tab.evaluate(SET_VUE, RENDERERS[request.param])
    tab.evaluate(NEW_BLANK_WORKFLOW)
    return request.param
