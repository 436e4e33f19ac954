"""A click on Choose Merge takes a merge that Find the Merge tried, in both renderers."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from sandbox.server import ComfyServer

from .conftest import open_page
from .pages import (
    DISPATCH,
    NEW_BLANK_WORKFLOW,
    PLACE,
    RENDERERS,
    RUN_MS,
    SET_VUE,
    contains,
    look_at,
    message,
    panel,
    report,
    run,
    shoot,
)

LOAD = "(prompt) => app.loadApiJson(prompt, 'find_merge')"
CHOICE = """
    async () => {
        const { output } = await app.graphToPrompt();
        const node = Object.values(output).find((n) => n.class_type === "ChooseMerge");
        return node.inputs;
    }
"""
SET = """
    ([name, value]) => {
        const node = app.graph.nodes.find((n) => n.type === "ChooseMerge");
        node.widgets.find((w) => w.name === name).value = value;
    }
"""
PUT_OUT = """
    ([type, output]) => {
        const node = String(app.graph.nodes.find((n) => n.type === type).id);
        const detail = { node, display_node: node, output, prompt_id: "of a test" };
        app.api.dispatchEvent(new CustomEvent("executed", { detail }));
    }
"""
LISTEN = """
    () => {
        window.ran = [];
        app.api.addEventListener("executing", ({ detail }) => detail && window.ran.push(detail));
    }
"""
SHEET, SEARCH = "Images of Choose Merge", "Search of Find the Merge"
NATURAL = "(found) => found.map((image) => image.naturalWidth)"


def prompt_of_a_search(seed: int) -> dict[str, Any]:
    """A search of four pairs of strengths with the tiny SDXL, in API format."""
    names = {"content_lora": "my_subject.safetensors", "style_lora": "my_style.safetensors"}
    weights = {"content_weight": 1.0, "style_weight": 1.0, "method": "direct", "rank": 0}
    found = {
        "model": ["1", 0], "vae": ["1", 2], "merged": ["3", 0], "positive": ["4", 0],
        "negative": ["5", 0], "latent": ["6", 0], "strengths": "0.4/1, 1/0.4, 0.7/0.7",
        "pictures": 8, "minutes": 0.0, "seed": seed, "steps": 3, "cfg": 2.0,
        "sampler_name": "euler", "scheduler": "normal", "negative_strength": 0.0,
    }  # fmt: skip
    pair = {**names, "content_strength": 1.0, "style_strength": 1.0}
    kinds = [
        ("CheckpointLoaderSimple", {"ckpt_name": "sd_xl_base_1.0.safetensors"}),
        ("LoadLoRAPair", pair),
        ("MergeLoRAs", {"model": ["1", 0], "pair": ["2", 0], **weights}),
        ("CLIPTextEncode", {"text": "a sks dog in watercolor style", "clip": ["1", 1]}),
        ("CLIPTextEncode", {"text": "blurry", "clip": ["1", 1]}),
        ("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 1}),
        ("FindMerge", found),
        ("ChooseMerge", {"found": ["7", 2], "choice": 0, "blind": False}),
        ("PreviewImage", {"images": ["8", 2]}),
    ]
    return {
        str(n): {"class_type": kind, "inputs": inputs, "_meta": {"title": ""}}
        for n, (kind, inputs) in enumerate(kinds, start=1)
    }


def buttons(page: Page) -> Locator:
    return panel(page, SHEET).locator(".sheet").get_by_role("button")


def framed(page: Page) -> list[str]:
    """The labels of the images that are framed as chosen."""
    return panel(page, SHEET).locator('[aria-pressed="true"]').all_inner_texts()


@pytest.mark.parametrize("renderer", RENDERERS)
def test_click_takes_a_merge_and_runs_only_what_follows(
    browser: Browser, server: ComfyServer, renderer: str
) -> None:
    seed = 11 + RENDERERS[renderer]
    server.post("/settings", {"Comfy.VueNodes.Enabled": RENDERERS[renderer]})
    with open_page(browser, server) as page:
        page.evaluate(LOAD, prompt_of_a_search(seed))
        page.wait_for_function("() => app.graph.nodes.length === 9")
        look_at(page, "FindMerge")
        searching = panel(page, SEARCH)
        expect(searching.get_by_text("Save now")).to_be_hidden()
        expect(searching.locator(".plot")).to_be_hidden()
        run(page)
        said = report(page, "Find the Merge")
        expect(said).to_have_value(contains(f"seeds from {seed}"), timeout=RUN_MS)
        expect(searching).to_contain_text("image 8 of 8")
        expect(searching).to_contain_text("Finished · merged, best first: ")
        expect(searching.locator("img")).to_be_visible()
        shoot(page, f"{renderer}_search")

        look_at(page, "ChooseMerge")
        expect(buttons(page)).to_have_count(4)
        for image in panel(page, SHEET).locator("img").all():
            expect(image).to_have_js_property("naturalWidth", 64)
        labels = buttons(page).all_inner_texts()
        assert [label.split(":")[0] for label in labels] == ["1", "2", "3", "4"]
        assert framed(page) == labels[:1]
        buttons(page).nth(2).click()
        assert page.evaluate(CHOICE)["choice"] == 3 and framed(page) == [labels[2]]
        shoot(page, f"{renderer}_choice")
        panel(page, SHEET).get_by_role("button", name="Compare").click()
        large = page.get_by_role("dialog")
        expect(large.get_by_label("Left picture")).to_have_value(labels[0])
        expect(large.get_by_label("Right picture")).to_have_value(labels[2])
        large.get_by_role("slider", name="Divider").press("ArrowLeft")
        assert min(large.locator("img").evaluate_all(NATURAL)) == 64
        page.keyboard.press("Escape")
        expect(large).to_have_count(0)
        page.keyboard.press("Control+z")
        expect(buttons(page)).to_have_count(4)
        expect(buttons(page).first).to_have_attribute("aria-pressed", "true")
        assert page.evaluate(CHOICE)["choice"] == 0
        buttons(page).nth(3).focus()
        page.keyboard.press("Enter")
        assert page.evaluate(CHOICE)["choice"] == 4 and framed(page) == [labels[3]]

        page.evaluate(LISTEN)
        page.evaluate(SET, ["blind", True])
        run(page)
        expect(buttons(page).first).to_have_text("A", timeout=RUN_MS)
        place, _ = page.evaluate(PLACE, "FindMerge")
        assert place not in page.evaluate("() => window.ran.map(String)")
        assert buttons(page).all_inner_texts() == ["A", "B", "C", "D"]
        assert len(framed(page)) == 1
        page.evaluate(SET, ["choice", 0])
        expect(panel(page, SHEET).locator('[aria-pressed="true"]')).to_have_count(0)
        seen = set()
        for n in range(4):
            buttons(page).nth(n).click()
            seen.add(page.evaluate(CHOICE)["choice"])
            assert framed(page) == ["ABCD"[n]]
        assert seen == {1, 2, 3, 4}
        shoot(page, f"{renderer}_blind")

        page.evaluate(NEW_BLANK_WORKFLOW)
        expect(panel(page, SHEET)).to_have_count(0)
        page.get_by_test_id("topbar-workflow-tabs").get_by_text("find_merge").click()
        expect(buttons(page)).to_have_count(4)
        page.evaluate(SET_VUE, False)


def test_sheet_outlives_what_the_server_should_not_say(tab: Page, renderer: str) -> None:
    tab.evaluate(LOAD, prompt_of_a_search(0))
    tab.wait_for_function("() => app.graph.nodes.length === 9")
    look_at(tab, "FindMerge")
    searching = panel(tab, SEARCH)
    for state, words in (("running", "image 5 of 26 · 2 images/s · 11 s left · 1.0 of 8.0 GiB"),
                         ("stopped", "Stopped, with the best so far"),
                         ("cancelled", "Cancelled")):  # fmt: skip
        said = message(tab, "FindMerge", 5, state=state, points={"step": []}, status="")
        tab.evaluate(DISPATCH, {**said, "steps": 26})
        expect(searching).to_contain_text(words)
        if state == "running":
            expect(searching.get_by_text("Stop and keep")).to_be_visible()
            expect(searching.locator(".plot")).to_be_hidden()
    expect(searching).not_to_contain_text("to continue")
    look_at(tab, "ChooseMerge")
    shown = panel(tab, SHEET)
    expect(shown).to_contain_text("The images appear here after a run.")
    row = {"number": 1, "label": "1: 1 / 1, 0.50", "filename": "x.png", "subfolder": "",
           "type": "temp"}  # fmt: skip
    tab.route("**/view?*", lambda route: route.fulfill())
    for broken in (None, 7, {}, {"rows": []}, {"blind": False, "rows": [7]},
                   {"blind": False, "rows": [{**row, "number": "1"}]},
                   {"blind": None, "rows": [row]}):  # fmt: skip
        tab.evaluate(PUT_OUT, ["ChooseMerge", {"ziplora_merge_sheet": [broken]}])
    expect(buttons(tab)).to_have_count(0)
    rows = [{**row, "number": n, "label": f"{n}: 1 / {n}, 0.50"} for n in range(1, 31)]
    tab.evaluate(
        PUT_OUT, ["ChooseMerge", {"ziplora_merge_sheet": [{"blind": False, "rows": rows}]}]
    )
    expect(buttons(tab)).to_have_count(30)
    expect(buttons(tab).last).to_be_in_viewport(ratio=0.999)
    tab.evaluate("""() => {
        const node = app.graph.nodes.find((n) => n.type === "ChooseMerge");
        const number = LiteGraph.createNode("PrimitiveInt");
        app.graph.add(number);
        number.connect(0, node, node.inputs.findIndex((i) => i.widget?.name === "choice"));
    }""")
    buttons(tab).nth(4).click()
    expect(buttons(tab).first).to_have_attribute("aria-pressed", "true")
    shoot(tab, f"{renderer}_sheet_of_thirty")
    tab.unroute("**/view?*")
