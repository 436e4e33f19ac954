"""What the browser tests share."""

from __future__ import annotations

import re

from playwright.sync_api import ConsoleMessage, Locator, Page

Said = tuple[str, str, str]
"""Of a line on the console: kind, text, address of the script."""
SET_VUE = "(on) => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on)"
RENDERERS = {"canvas": False, "vue": True}
NEW_BLANK_WORKFLOW = "() => app.extensionManager.command.execute('Comfy.NewBlankWorkflow')"
INK = """
    (canvas) => {
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return data.filter((value, n) => n % 4 === 3 && value > 0).length;
    }
"""


def listen(page: Page, said: list[Said]) -> None:
    """Collect what a page says on its console."""

    def hear(message: ConsoleMessage) -> None:
        address = str(message.location.get("url", "")).split("?")[0]
        said.append((message.type, message.text, re.sub(r"-\w+\.js$", ".js", address)))

    page.on("console", hear)
    page.on("pageerror", lambda error: said.append(("pageerror", str(error), "")))


def panel(page: Page, name: str) -> Locator:
    return page.get_by_role("group", name=name, exact=True)
