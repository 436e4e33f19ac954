"""What the pack's panels on nodes show and do, in both renderers."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch
from playwright.sync_api import (
    Browser,
    Page,
    Route,
    expect,
)

from sandbox.server import ComfyServer
from ziplora_core.lora import LoraFactors
from ziplora_core.merge import MergedLoRA
from ziplora_core.merge_map import merge_map
from ziplora_core.pairing import ModulePair

from .conftest import open_page
from .pages import (
    DISPATCH,
    DREAMBOOTH,
    INK,
    MERGE,
    RENDERERS,
    SET_VUE,
    SLIDERS,
    Said,
    chart_of,
    contains,
    drop,
    listen,
    look_at,
    message,
    panel,
    shoot,
)

TRAININGS = {"ZipLoRAOptimize": MERGE, "TrainDreamBoothLoRA": DREAMBOOTH}
OURS = re.compile("/extensions/ziplora/|/api/ziplora/|/scripts/(app|api).js$")
"""Our scripts, what of the frontend they import, and our routes; there are no others."""
EXTENSIONS = re.compile("/(api/)?extensions$")
INTO_SUBGRAPH = """
    () => {
        const node = app.graph.nodes.find((n) => n.type === "ZipLoRAOptimize");
        const outer = app.graph.convertToSubgraph(new Set([node])).node;
        app.canvas.setGraph(outer.subgraph);
        const [inner] = outer.subgraph.nodes.filter((n) => n.type === "ZipLoRAOptimize");
        return `${outer.id}:${inner.id}`;
    }
"""
EXECUTED = """
    ([type, output]) => app.graph.nodes.find((node) => node.type === type).onExecuted(output)
"""
SDXL = {
    "input_blocks_4_1": 2, "input_blocks_5_1": 2, "input_blocks_7_1": 10, "input_blocks_8_1": 10,
    "middle_block_1": 10, "output_blocks_0_1": 10, "output_blocks_1_1": 10,
    "output_blocks_2_1": 10, "output_blocks_3_1": 2, "output_blocks_4_1": 2,
    "output_blocks_5_1": 2,
}  # fmt: skip
"""Transformer blocks in each of its blocks."""
COLOURS = """
    async (panel, palette) => {
        const { between, CURVES } = await import("/extensions/ziplora/colours.js");
        return [getComputedStyle(panel).color, ...CURVES[palette].map((c) => between([c, c], 0))];
    }
"""
SWATCHES = "(found) => found.map((swatch) => getComputedStyle(swatch).backgroundColor)"
TICKS = """
    async () => {
        const { ticks } = await import("/extensions/ziplora/scales.js");
        const counts = new Set();
        for (let low = 1e-6; low < 100; low *= 1.7) {
            for (let more = 0.02; more < 1000; more *= 1.3) {
                for (const logarithmic of [true, false]) {
                    counts.add(ticks([low, low * (1 + more)], logarithmic).length);
                }
            }
        }
        return [Math.min(...counts), Math.max(...counts)];
    }
"""
NEXT_MESSAGES = """
    (whole) => {
        const times = [];
        for (let n = 1; n <= 20; n++) {
            const step = whole.step + n;
            const points = { step: [step], loss: [1], content: [1], style: [1] };
            const detail = { ...whole, step, points, after: step - 1 };
            const start = performance.now();
            app.api.dispatchEvent(new CustomEvent('ziplora.training', { detail }));
            times.push(performance.now() - start);
        }
        return times.sort((a, b) => a - b)[10];
    }
"""
TEN_THOUSAND = """
    async () => {
        const { Chart } = await import("/extensions/ziplora/chart.js");
        const { makePanel } = await import("/extensions/ziplora/panel.js");
        const panel = makePanel();
        panel.style.cssText = "position: fixed; left: 0; top: 0; width: 400px; height: 200px";
        const chart = new Chart("Loss");
        panel.append(chart.element);
        document.body.append(panel);
        const drawing = (count) => {
            const steps = [...Array(count).keys()].map((n) => n + 1);
            const term = (size) => steps.map((s) => size * (1 + Math.sin(s * s)) + 1 / s);
            const sizes = Object.entries({ content: 1, style: 2, penalty: 9 });
            chart.show(steps, new Map(sizes.map(([name, size]) => [name, term(size)])));
            const times = [];
            for (let n = 0; n < 20; n++) {
                const start = performance.now();
                chart.draw();
                times.push(performance.now() - start);
            }
            return times.sort((a, b) => a - b)[10];
        };
        const [few, many] = [drawing(500), drawing(10000)];
        panel.remove();
        return { ...chart.drawn, few, many };
    }
"""


def test_each_copy_of_a_workflow_has_trainings_of_its_own(tab: Page) -> None:
    drop(tab, MERGE)
    first = message(tab, "ZipLoRAOptimize", 7)
    drop(tab, MERGE)
    second = message(tab, "ZipLoRAOptimize", 9)
    assert len({first["workflow"], second["workflow"]}) == 2
    shown = panel(tab, "Training of ZipLoRA Optimize")
    for said in (second, first):
        tab.evaluate(DISPATCH, said)
    expect(shown).to_contain_text("step 9 of 400")


@pytest.mark.parametrize("node_type", TRAININGS)
def test_training_panel_shows_what_the_server_says_and_outlives_what_it_should_not_say(
    tab: Page, renderer: str, node_type: str
) -> None:
    drop(tab, TRAININGS[node_type])
    look_at(tab, node_type)
    title = {"ZipLoRAOptimize": "ZipLoRA Optimize"}.get(node_type, "Train DreamBooth LoRA")
    shown = panel(tab, f"Training of {title}")
    expect(shown).to_contain_text("Loss, pace and memory appear here")
    chart, stop = chart_of(shown), shown.get_by_text("Stop and keep")
    expect(stop).to_be_disabled()
    size = shown.bounding_box()

    tab.evaluate(DISPATCH, message(tab, node_type, 100))
    expect(shown).to_contain_text("step 100 of 400 · 2 steps/s · 2 min 30 s left · 1.0 of 8.0 GiB")
    expect(chart).to_have_attribute("aria-label", contains("step 100: content 0.01, style 0.01"))
    expect(stop).to_be_enabled()
    assert chart.evaluate(INK) > 1000
    more = {"step": [100, 101, 102], "loss": [1, 1, None], "content": [5, 5, None],
            "style": [1, 1, 1]}  # fmt: skip
    tab.evaluate(DISPATCH, message(tab, node_type, 100, step=102, after=100, points=more))
    expect(chart).to_have_attribute("aria-label", contains("step 102: content: not a number"))
    chart.focus()
    tab.keyboard.press("Home")
    expect(shown.locator(".tip")).to_have_text("step 1\ncontent 1\nstyle 1")
    tab.keyboard.press("Escape")
    shown.get_by_text("log", exact=True).click()
    expect(shown.get_by_text("log", exact=True)).to_have_attribute("aria-pressed", "false")
    assert shown.bounding_box() == size
    shoot(tab, f"{renderer}_panel_{node_type}")

    whole = message(tab, node_type, 100)
    for broken in (None, 7, {}, {**whole, "points": None}, {**whole, "samples": "x"},
                   {**whole, "points": {"step": [1, 2], "loss": [1]}}, {**whole, "step": "x"},
                   {**whole, "node_id": "999"}, {**whole, "workflow": "another"}):  # fmt: skip
        tab.evaluate(DISPATCH, broken)
    expect(shown).to_contain_text("The server has sent something that cannot be shown")
    tab.evaluate("() => app.api.dispatchEvent(new CustomEvent('reconnecting'))")
    expect(shown).to_contain_text("The server does not answer")
    expect(stop).to_be_disabled()
    tab.evaluate("() => app.api.dispatchEvent(new CustomEvent('reconnected'))")
    expect(shown).to_contain_text("The server was started anew")

    last = message(tab, node_type, 100)
    tab.evaluate("(type) => app.graph.remove(app.graph.nodes.find((n) => n.type === type))",
                 node_type)  # fmt: skip
    expect(shown).to_have_count(0)
    tab.evaluate(DISPATCH, last)


def test_training_panel_shows_each_pass_of_the_closed_form_while_it_goes_on(
    tab: Page, renderer: str
) -> None:
    drop(tab, MERGE)
    look_at(tab, "ZipLoRAOptimize")
    said = message(tab, "ZipLoRAOptimize", 0, run="of passes", points={"step": []})
    said |= {"steps": 0, "prepared": [0, 0]}
    shown = panel(tab, "Training of ZipLoRA Optimize")
    tab.evaluate(DISPATCH, said | {"speed": None})
    expect(shown).to_contain_text("starting · 1.0 of 8.0 GiB in use")
    tab.evaluate(DISPATCH, said | {"errors": [1, 0.62, 0.31], "prepared": [90, 120]})
    expect(shown).to_contain_text("75 % done · 2 passes · 15 s left · 1.0 of 8.0 GiB in use")
    expect(shown).to_contain_text("error 0.31")
    expect(chart_of(shown)).to_have_attribute("aria-label", contains("pass 2: error 0.31"))
    expect(shown.get_by_text("Stop and keep")).to_be_enabled()
    expect(shown.get_by_text("Save now")).to_be_disabled()  # there is nothing to save yet
    shoot(tab, f"{renderer}_passes")


def test_map_of_a_merge_has_room_for_all_of_sdxl(tab: Page, renderer: str) -> None:
    drop(tab, MERGE)
    look_at(tab, "ZipLoRAOptimize")
    drawn = sdxl_map()
    assert len(drawn["cells"]) == 560 and len(drawn["blocks"]) == 70
    tab.evaluate(EXECUTED, ["ZipLoRAOptimize", {"ziplora_merge_map": [drawn]}])
    shown = panel(tab, "Map of ZipLoRA Optimize")
    mapped = shown.locator(".plot > canvas")
    mapped.focus()
    for key in ("ArrowDown", "ArrowDown", *["ArrowRight"] * 24):
        tab.keyboard.press(key)
    tip = shown.locator(".tip")
    expect(tip).to_contain_text("middle_block.1 · 0 · attn1.to_k")
    expect(tip.locator("canvas")).to_be_visible()
    shoot(tab, f"{renderer}_map_of_sdxl")
    before = mapped.evaluate("(canvas) => canvas.toDataURL()")
    shown.get_by_role("combobox").select_option("layer cosine after")
    expect(mapped).to_have_attribute("aria-label", contains("layer cosine after"))
    assert mapped.evaluate("(canvas) => canvas.toDataURL()") != before


def sdxl_map() -> dict[str, Any]:
    """What ZipLoRA Optimize puts out after a merge of all of SDXL's attention, of narrow layers."""
    coefficients = {}
    for block, depth in SDXL.items():
        for turn in range(depth):
            for row, layer in enumerate(("q", "k", "v", "out_0") * 2):
                name = f"{block}_transformer_blocks_{turn}_attn{1 + row // 4}_to_{layer}"
                seed = torch.Generator().manual_seed(len(coefficients))
                coefficients[f"lora_unet_{name}"] = torch.rand(2, 8, generator=seed) * (2 - row / 8)
    factors = LoraFactors(torch.ones(1, 8), torch.ones(8, 1))
    pair = ModulePair(factors, factors)
    drawn = merge_map(MergedLoRA(dict.fromkeys(coefficients, pair), coefficients))
    assert drawn is not None
    return drawn


def test_training_panel_in_a_subgraph_hears_its_messages_and_is_readable_in_both_palettes(
    tab: Page, renderer: str
) -> None:
    drop(tab, TRAININGS["ZipLoRAOptimize"])
    said = message(tab, "ZipLoRAOptimize", 7)
    said["node_id"] = tab.evaluate(INTO_SUBGRAPH)
    shown = panel(tab, "Training of ZipLoRA Optimize")
    expect(shown).to_be_visible()
    tab.evaluate(DISPATCH, said)
    expect(shown).to_contain_text("step 7 of 400")
    for palette, background in (("light", "rgb(201, 201, 201)"), ("dark", "rgb(34, 34, 34)")):
        tab.evaluate("(id) => app.extensionManager.setting.set('Comfy.ColorPalette', id)", palette)
        expect(shown).to_have_css("background-color", background)
        ink, *curves = shown.evaluate(COLOURS, palette)
        assert contrast(ink, background) >= 4.5
        swatches = shown.locator(".legend i").evaluate_all(SWATCHES)
        assert swatches == curves[:2]  # of content and of style, as the chart draws them
        assert min(contrast(curve, background) for curve in curves) >= 3  # WCAG 2, 1.4.11
    tab.evaluate("() => app.canvas.setGraph(app.rootGraph)")


def contrast(*colours: str) -> float:
    """Of two colours `rgb(r, g, b)`, as WCAG 2 defines it."""

    def luminance(colour: str) -> float:
        parts = [int(n) / 255 for n in re.findall(r"\d+", colour)[:3]]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted(map(luminance, colours))
    return (high + 0.05) / (low + 0.05)


def test_chart_of_ten_thousand_points_draws_a_few_for_each_pixel_column(tab: Page) -> None:
    drawn = tab.evaluate(TEN_THOUSAND)
    assert 300 < drawn["columns"] < 400
    assert drawn["points"] <= 3 * 4 * (drawn["columns"] + 1)
    assert drawn["many"] < 10 * drawn["few"]  # twenty times the points
    tab.evaluate(SET_VUE, False)
    drop(tab, MERGE)
    tab.evaluate(DISPATCH, message(tab, "ZipLoRAOptimize", 10_000))
    taken = tab.evaluate(NEXT_MESSAGES, message(tab, "ZipLoRAOptimize", 10_000))
    shown = panel(tab, "Training of ZipLoRA Optimize")
    expect(chart_of(shown)).to_have_attribute("aria-label", contains("step 10020: "))
    print(  # noqa: T201 (for docs/BENCHMARKS.md)
        f"10,000 points of 3 terms: {drawn['many']:.2f} ms a drawing ("
        f"{drawn['few']:.2f} ms of 500), "
        f"{taken:.2f} ms a message"
    )


def test_scale_of_any_values_has_two_to_seven_numbers(tab: Page) -> None:
    least, most = tab.evaluate(TICKS)
    assert least >= 2 and most <= 7


def test_page_with_the_pack_says_and_asks_for_nothing_that_one_without_it_does_not(
    browser: Browser, server: ComfyServer
) -> None:
    """The frontend's part of the pack, that is: without it, no script of ours is served. Our nodes
    are used in both: the server knows them anyway."""
    said: dict[bool, list[Said]] = {}
    asked: dict[bool, set[str]] = {}
    for ours in (False, True):
        requests: list[str] = []

        def prepare(page: Page, ours: bool = ours, requests: list[str] = requests) -> None:
            listen(page, said.setdefault(ours, []))
            page.on("request", lambda request: requests.append(request.url))
            if not ours:
                page.route(EXTENSIONS, without_ours)

        with open_page(browser, server, prepare) as page:
            for vue in RENDERERS.values():
                page.evaluate(SET_VUE, vue)
                for path in (MERGE, DREAMBOOTH, SLIDERS):
                    drop(page, path)
                    page.wait_for_timeout(1000)
                page.evaluate("() => app.graph.remove(app.graph.nodes[3])")
                page.keyboard.press("Control+z")
                page.wait_for_timeout(1000)
            page.evaluate(SET_VUE, False)
        asked[ours] = {urlsplit(url).path for url in requests if url.startswith("http")}
        asked[ours] = {path for path in asked[ours] if not OURS.match(path)}
    assert asked[True] - asked[False] == set()
    assert set(said[True]) - set(said[False]) == set()


def without_ours(route: Route) -> None:
    """Leave our scripts out of the list of those that the frontend loads."""
    listed = route.fetch().json()
    route.fulfill(json=[path for path in listed if "/ziplora/" not in path])
