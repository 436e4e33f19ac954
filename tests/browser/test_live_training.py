"""A training in the page, from Run to the map, with all that can come between."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from sandbox.server import ComfyServer, fresh_base
from ziplora_core.files import read_lora

from .conftest import READY, open_page
from .line import line_to
from .pages import (
    INK,
    MERGE,
    NEW_BLANK_WORKFLOW,
    RENDERERS,
    RUN_MS,
    SET_VUE,
    chart_of,
    contains,
    drop,
    last_step,
    look_at,
    override,
    panel,
    report,
    run,
    see_step,
    shoot,
    tab_to,
)

TRAINING = "Training of ZipLoRA Optimize"
MAP = "Map of ZipLoRA Optimize"
SMALL = {"solver": "adam", "steps": 50_000, "width": 64, "height": 64}
AT_ONCE = {"held_out_draws": 0, "early_stop": False}
ADD_OPTIONS = """
    (values) => {
        const options = LiteGraph.createNode("TrainingOptions");
        app.graph.add(options);
        for (const widget of options.widgets) widget.value = values[widget.name] ?? widget.value;
        const trainer = app.graph.nodes.find((node) => node.type === "ZipLoRAOptimize");
        options.connect(0, trainer, trainer.findInputSlot("options"));
    }
"""


@pytest.mark.parametrize("renderer", RENDERERS)
def test_training_can_be_followed_through_a_reload_a_lost_server_saved_and_stopped(
    browser: Browser, server: ComfyServer, renderer: str
) -> None:
    server.free()
    server.post("/settings", {"Comfy.VueNodes.Enabled": RENDERERS[renderer]})
    with line_to(server.port) as line, open_page(browser, server, url=line.url) as page:
        drop(page, MERGE)
        override(page, {"ZipLoRAOptimize": SMALL})
        page.evaluate(ADD_OPTIONS, AT_ONCE)
        look_at(page, "ZipLoRAOptimize")
        run(page)
        shown = panel(page, TRAINING)
        chart = chart_of(shown)
        stop = shown.get_by_text("Stop and keep")
        expect(stop).to_be_enabled(timeout=RUN_MS)  # until then it shows the run of another test
        see_step(shown, 2)
        see_step(shown, 3 + last_step(chart.get_attribute("aria-label") or ""))
        shoot(page, f"{renderer}_learning")

        before = last_step(chart.get_attribute("aria-label") or "")
        page.reload()
        page.wait_for_function(READY, timeout=60_000)
        see_step(shown, before)
        look_at(page, "ZipLoRAOptimize")
        chart.focus()
        page.keyboard.press("Home")
        expect(shown.locator(".tip")).to_contain_text("step 1\n")
        shoot(page, f"{renderer}_refilled")
        page.keyboard.press("Escape")

        before = last_step(chart.get_attribute("aria-label") or "")
        page.evaluate(NEW_BLANK_WORKFLOW)
        expect(shown).to_have_count(0)
        page.wait_for_timeout(1000)  # it learns on, and nobody looks
        tab_to(page, MERGE.stem)
        see_step(shown, before + 3)
        look_at(page, "ZipLoRAOptimize")

        line.cut()
        expect(shown).to_contain_text("The server does not answer")
        before = last_step(chart.get_attribute("aria-label") or "")
        shoot(page, f"{renderer}_server_gone")
        line.mend()
        see_step(shown, before + 1)

        shown.get_by_text("Save now").click()
        expect(shown).to_contain_text("Saved as", timeout=RUN_MS)
        (name,) = re.findall(r"Saved as (\S+\.safetensors)", shown.inner_text())
        assert read_lora(server.output / "loras" / name).modules
        stop.click()
        expect(shown).to_contain_text("Stopped, and kept what was learned", timeout=RUN_MS)
        words = shown.get_by_role("status")
        assert words.evaluate("(e) => e.scrollHeight <= e.clientHeight")  # all can be read
        expect(report(page, "Save Merged LoRA")).to_have_value(contains("saved: "), timeout=RUN_MS)
        expect(report(page, "ZipLoRA Optimize")).to_have_value(contains("stopped after step"))
        shoot(page, f"{renderer}_stopped")

        mapped = panel(page, MAP).locator(".plot > canvas")
        assert mapped.evaluate(INK) > 1000
        box = mapped.bounding_box()
        assert box
        page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.2 * box["height"])
        tip = panel(page, MAP).locator(".tip")
        expect(tip).to_contain_text("layer cosine: ")
        expect(tip.locator("canvas")).to_be_visible()
        mapped.focus()
        page.keyboard.press("ArrowDown")
        expect(mapped).to_have_attribute("aria-label", re.compile(r"_block\S* .*attn\d\.to_"))
        shoot(page, f"{renderer}_map")
        page.keyboard.press("Escape")
        expect(tip).to_be_empty()

        last = last_step(chart.get_attribute("aria-label") or "")
        page.evaluate(NEW_BLANK_WORKFLOW)
        expect(shown).to_have_count(0)
        tab_to(page, MERGE.stem)
        see_step(shown, last)
        shoot(page, f"{renderer}_other_tab_and_back")
        page.evaluate(SET_VUE, False)


def test_server_started_anew_is_said_and_the_run_goes_on_from_its_checkpoint(
    browser: Browser, tmp_path: Path
) -> None:
    with ComfyServer(fresh_base(tmp_path)) as server, open_page(browser, server) as page:
        drop(page, MERGE)
        override(page, {"ZipLoRAOptimize": {**SMALL, "steps": 400}})
        page.evaluate(ADD_OPTIONS, {"checkpoint_every": 5, **AT_ONCE})
        look_at(page, "ZipLoRAOptimize")
        run(page)
        shown = panel(page, TRAINING)
        see_step(shown, 12)
        server.kill()
        expect(shown).to_contain_text("The server does not answer")
        expect(shown.get_by_text("Stop and keep")).to_be_disabled()
        with server:
            expect(shown).to_contain_text("The server was restarted. Press Run", timeout=RUN_MS)
            shoot(page, "server_started_anew")
            run(page)
            expect(shown.get_by_text("Stop and keep")).to_be_enabled(timeout=RUN_MS)
            see_step(shown, 20)
            shown.get_by_text("Stop and keep").click()
            resumed = report(page, "ZipLoRA Optimize")
            expect(resumed).to_have_value(re.compile(r"resumed at \d+"), timeout=RUN_MS)
