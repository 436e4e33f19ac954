"""A training in the page, from Run to the map, with all that can come between."""

from __future__ import annotations

import re
import time

from playwright.sync_api import Browser, Locator, expect

from sandbox.overrides import OVERRIDES
from sandbox.server import ComfyServer
from ziplora_core.files import read_lora

from .conftest import READY, open_page
from .line import line_to
from .pages import INK, NEW_BLANK_WORKFLOW, panel
from .test_workflows import (
    OVERRIDE,
    RUN_MS,
    WORKFLOW,
    contains,
    drop,
    look_at,
    report,
    shoot,
)


def test_training_can_be_followed_through_a_reload_a_lost_server_saved_and_stopped(
    browser: Browser, server: ComfyServer
) -> None:
    server.free()
    with line_to(server.port) as line, open_page(browser, server, url=line.url) as page:
        drop(page, WORKFLOW)
        page.evaluate(OVERRIDE, OVERRIDES)
        small = {"solver": "adam", "steps": 50_000, "width": 64, "height": 64}
        page.evaluate(OVERRIDE, {"ZipLoRAOptimize": small})
        page.evaluate(OVERRIDE, {"TrainingOptions": {"held_out_draws": 0, "early_stop": False}})
        look_at(page, "ZipLoRAOptimize")
        page.evaluate("() => app.queuePrompt(0)")
        shown = panel(page, "Training of ZipLoRA Optimize")
        chart = shown.locator(".plot canvas")
        stop = shown.get_by_text("Stop and keep")
        expect(stop).to_be_enabled(timeout=RUN_MS)  # until then it shows the run of another test
        see_step(chart, 2)
        see_step(chart, 3 + step_of(chart))

        before = step_of(chart)
        page.reload()
        page.wait_for_function(READY, timeout=60_000)
        see_step(chart, before)
        look_at(page, "ZipLoRAOptimize")
        chart.focus()
        page.keyboard.press("Home")
        expect(shown.locator(".tip")).to_contain_text("step 1\n")
        page.keyboard.press("Escape")
        shoot(page, "panel_refilled")

        line.cut()
        expect(shown).to_contain_text("The server does not answer")
        before = step_of(chart)
        line.mend()
        see_step(chart, before + 1)

        shown.get_by_text("Save now").click()
        expect(shown).to_contain_text("Saved as", timeout=RUN_MS)
        (name,) = re.findall(r"Saved as (\S+\.safetensors)\.", shown.inner_text())
        assert read_lora(server.output / "loras" / name).modules
        stop.click()
        expect(shown).to_contain_text("Stopped, and kept what was learned", timeout=RUN_MS)
        expect(report(page, "Save Merged LoRA")).to_have_value(contains("saved: "), timeout=RUN_MS)
        expect(report(page, "ZipLoRA Optimize")).to_have_value(contains("stopped at"))

        mapped = panel(page, "Map of ZipLoRA Optimize").locator(".plot > canvas")
        assert mapped.evaluate(INK) > 1000
        box = mapped.bounding_box()
        assert box
        page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.2 * box["height"])
        tip = panel(page, "Map of ZipLoRA Optimize").locator(".tip")
        expect(tip).to_contain_text("layer cosine: ")
        expect(tip.locator("canvas")).to_be_visible()
        mapped.focus()
        page.keyboard.press("ArrowDown")
        expect(mapped).to_have_attribute("aria-label", re.compile(r"_block\S* .*attn\d\.to_"))
        shoot(page, "panel_map")

        last = step_of(chart)
        page.evaluate(NEW_BLANK_WORKFLOW)
        expect(shown).to_have_count(0)
        page.get_by_test_id("topbar-workflow-tabs").get_by_text("ziplora_merge").click()
        see_step(chart, last)
        assert page.evaluate("() => document.querySelectorAll('style[data-ziplora]').length") == 1


def step_of(chart: Locator) -> int:
    """The last step that a chart has a point of; 0 without a chart."""
    label = "(found) => found.map((canvas) => canvas.getAttribute('aria-label') ?? '').join()"
    found = re.search(r"step (\d+)", chart.evaluate_all(label))
    return int(found[1]) if found else 0


def see_step(chart: Locator, step: int) -> None:
    """Wait until a chart has come this far."""
    deadline = time.monotonic() + RUN_MS / 1000
    while step_of(chart) < step:
        assert time.monotonic() < deadline, f"no step {step}"
        chart.page.wait_for_timeout(100)
