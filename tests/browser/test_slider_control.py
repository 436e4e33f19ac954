"""Concept Slider's control moves the numbers that are queued, in both renderers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from playwright.sync_api import Browser, Locator, Page, expect

from sandbox.server import ComfyServer
from ziplora_core.files.writer import lora_bytes
from ziplora_core.lora.factors import LoraFactors

from .conftest import open_page
from .fonts import in_every_font
from .pages import RENDERERS, SET_VUE, SLIDERS, contains, drop, look_at, panel, shoot

WIDGETS = """
    async () => {
        const { output } = await app.graphToPrompt();
        const node = Object.values(output).find((n) => n.class_type === "ConceptSlider");
        return node.inputs;
    }
"""
CHANGES = "() => app.extensionManager.workflow.activeWorkflow.changeTracker.changeCount"
OFFSET = "() => [...app.canvas.ds.offset, app.canvas.ds.scale]"
LINK = """
    ([type, name]) => {
        const node = app.graph.nodes.find((n) => n.type === "ConceptSlider");
        const other = LiteGraph.createNode(type);
        app.graph.add(other);
        other.pos = [node.pos[0] - 400, node.pos[1] + 300];
        const to = node.inputs.findIndex((input) => input.name === name);
        const { type: wanted } = node.inputs[to];
        other.connect(other.outputs.findIndex((output) => output.type === wanted), node, to);
    }
"""
CHANGE = """
    (change) => {
        const node = app.graph.nodes.find((n) => n.type === "ConceptSlider");
        if ("mode" in change) node.mode = change.mode;
        const [least] = node.computeSize();
        if ("width" in change) node.setSize([Math.max(change.width, least), node.size[1]]);
        node.graph.setDirtyCanvas(true, true);
    }
"""
RAN = """
    (output) => {
        const node = app.graph.nodes.find((n) => n.type === "ConceptSlider");
        const id = String(node.id);
        const detail = { node: id, display_node: id, output, prompt_id: "of a test" };
        app.api.dispatchEvent(new CustomEvent("executed", { detail }));
    }
"""
PAINTED = """
    (element) => {
        let shade = 1;
        for (let e = element; e; e = e.parentElement) shade *= Number(getComputedStyle(e).opacity);
        return shade;
    }
"""
COLOUR = "(element) => getComputedStyle(element).backgroundColor"
CUT = """
    (panel) => [panel, ...panel.querySelectorAll(".ends, .ends span, .name b, .value")]
        .filter((e) => {
            const [inner, outer] = [e, panel].map((x) => x.getBoundingClientRect());
            return e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0
                || inner.left < outer.left - 1 || inner.right > outer.right + 1
                || inner.top < outer.top - 1 || inner.bottom > outer.bottom + 1;
        })
        .map((e) => e.className || e.textContent)
"""
ORANGE, RED, BLUE = "rgb(255, 159, 67)", "rgb(224, 82, 79)", "rgb(59, 158, 255)"
MUTED, BYPASSED = 2, 4
SET = """
    ([name, value]) => {
        const node = app.graph.nodes.find((n) => n.type === "ConceptSlider");
        node.widgets.find((w) => w.name === name).value = value;
    }
"""


def test_slider_control_moves_the_queued_numbers(
    tab: Page, renderer: str, server: ComfyServer
) -> None:
    module = {"lora_unet_middle_block_1_proj_in": LoraFactors(torch.ones(1, 4), torch.ones(4, 1))}
    use = '{"range": [-2, 2], "start_percent": 0.2}'
    (server.models / "loras" / "ranged.safetensors").write_bytes(
        lora_bytes(module, {"ziplora.slider": use})
    )
    drop(tab, SLIDERS)
    look_at(tab, "ConceptSlider")
    shown = panel(tab, "Slider of Concept Slider")
    scale = shown.get_by_role("slider", name="Strength", exact=True)
    start, end = (
        shown.get_by_role("slider", name=f"{side} of the sampling window", exact=True)
        for side in ("Start", "End")
    )
    expect(shown.locator(".trained")).to_be_hidden()
    expect(shown.locator(".track").first).to_have_attribute("title", contains("no such file"))
    tab.evaluate(SET, ["slider", "ranged.safetensors"])
    expect(shown.locator(".trained")).to_be_visible()
    expect(scale).to_have_attribute("aria-valuetext", "1.50, trained −2 to 2")

    drag(tab, scale, -0.25)
    assert -1.5 < values(tab)["scale"] < -0.5
    for key, wanted in (("Home", -10), ("End", 10), ("ArrowLeft", 9.95), ("PageDown", 9.45)):
        scale.press(key)
        assert values(tab)["scale"] == pytest.approx(wanted)
    expect(scale).to_have_attribute("aria-valuenow", "9.45")
    scale.hover()
    tab.mouse.wheel(0, 100)
    expect(scale).to_have_attribute("aria-valuenow", "9.4")
    scale.dblclick()
    assert values(tab)["scale"] == 1
    drag(tab, scale, 0.2)
    assert 2 < values(tab)["scale"] < 4
    tab.keyboard.press("Control+z")
    expect(scale).to_have_attribute("aria-valuenow", "1")
    tab.evaluate(SET, ["scale", -3.5])
    expect(scale).to_have_attribute("aria-valuenow", "-3.5")

    drag(tab, scale, 1)  # beyond the end of the track, which then is longer
    assert values(tab)["scale"] > 6
    expect(shown.get_by_text("+10")).to_be_visible()
    shown.locator(".track").first.dblclick()
    expect(shown.get_by_text("+5")).to_be_visible()

    drag(tab, end, -0.3)
    assert 0.6 < values(tab)["end_percent"] < 0.8
    start.press("End")
    window = values(tab)
    assert window["end_percent"] - window["start_percent"] == pytest.approx(0.01)
    shoot(tab, f"{renderer}_slider")
    shown.locator(".track").last.dblclick()
    assert (values(tab)["start_percent"], values(tab)["end_percent"]) == (0.25, 1)
    assert shown.evaluate("(p) => Math.min(...[...p.querySelectorAll('.thumb')]"
                          ".map((t) => t.offsetWidth))") >= 24  # fmt: skip

    tab.evaluate(LINK, ["PrimitiveFloat", "scale"])
    expect(scale).to_have_attribute("aria-disabled", "true")
    expect(shown.locator(".track").first).to_have_attribute("title", contains("another node"))


@in_every_font
def test_slider_control_says_what_its_values_mean(tab: Page, renderer: str, fonts: str) -> None:
    drop(tab, SLIDERS)
    tab.evaluate(SET, ["slider", "None"])
    look_at(tab, "ConceptSlider")
    shown = panel(tab, "Slider of Concept Slider")
    strength, when = shown.locator(".named").all()
    expect(strength.locator("b")).to_have_text("Strength")
    expect(when.locator("b")).to_have_text("When")

    for value in (1.5, -3, 7):
        tab.evaluate(SET, ["scale", value])
        number = strength.locator(".value")
        expect(number).to_have_text(f"{value:.2f}".replace("-", "−"))
        assert middle(number)[0] == pytest.approx(middle(strength.locator(".thumb"))[0], abs=1)
        zero = strength.get_by_text("0", exact=True)
        assert middle(zero)[0] == pytest.approx(middle(strength.locator(".zero"))[0], abs=1)

    tab.evaluate(LINK, ["LoadMergedLoRA", "slider_model"])
    expect(strength.locator(".trained")).to_be_hidden()
    expect(strength.locator(".track")).to_have_attribute("title", contains("after a run"))
    tab.evaluate(RAN, {"text": ["…"], "ziplora_slider_range": [[-2, 2]]})
    expect(strength).to_contain_text("beyond the trained −2 to 2")
    thumb = strength.get_by_role("slider")
    expect(thumb).to_have_attribute("aria-valuetext", "7.00, beyond the trained −2 to 2")
    assert strength.locator(".beyond").evaluate(COLOUR) == ORANGE
    assert strength.locator(".part").first.evaluate(COLOUR) == BLUE
    expect(strength.locator(".track")).to_have_attribute(
        "title", "beyond the trained −2 to 2; double-click to reset to 1"
    )
    shoot(tab, f"{renderer}_slider_beyond")
    strength.locator(".track").dblclick()
    expect(strength.locator(".value")).to_have_text("1.00")
    expect(strength.locator(".beyond")).to_be_hidden()
    expect(strength.locator(".said")).to_have_text("trained −2 to 2")

    tab.evaluate(SET, ["start_percent", 0.8])
    tab.evaluate(SET, ["end_percent", 0.3])
    expect(when).to_contain_text("ends before it starts")
    assert when.locator(".part").evaluate(COLOUR) == RED
    expect(when.get_by_role("slider").first).to_have_attribute("aria-invalid", "true")
    shoot(tab, f"{renderer}_slider_inverted")
    when.locator(".track").dblclick()
    expect(when).to_contain_text("on from 25 % to 100 %")
    expect(when.locator(".track")).to_have_attribute("title", contains("reset to 25 % to 100 %"))
    expect(when.get_by_role("slider").first).to_have_attribute("aria-invalid", "false")
    assert when.locator(".value").all_inner_texts() == ["25 %", "100 %"]

    for start in (0.25, 0.99):  # two values that would lie over each other are one
        tab.evaluate(SET, ["start_percent", start])
        for width in (1200, 0):  # or as narrow as it can be
            tab.evaluate(CHANGE, {"width": width})
            tab.wait_for_timeout(300)
            assert shown.evaluate(CUT) == []
    assert when.locator(".value").all_inner_texts() == ["99 % – 100 %", ""]
    shoot(tab, f"{renderer}_slider_narrow")

    before = shown.evaluate(PAINTED)
    for mode in (MUTED, BYPASSED):
        tab.evaluate(CHANGE, {"mode": mode, "width": 360})
        tab.wait_for_timeout(300)
        assert shown.evaluate(PAINTED) <= 0.5 * before
        shoot(tab, f"{renderer}_slider_mode_{mode}")
    tab.evaluate(CHANGE, {"mode": 0})
    tab.wait_for_timeout(300)
    assert shown.evaluate(PAINTED) == before


@pytest.mark.parametrize("renderer", RENDERERS)
def test_slider_is_moved_by_a_finger_and_the_canvas_stays(
    browser: Browser, server: ComfyServer, renderer: str
) -> None:
    server.post("/settings", {"Comfy.VueNodes.Enabled": RENDERERS[renderer]})
    with open_page(browser, server, has_touch=True) as page:
        drop(page, SLIDERS)
        look_at(page, "ConceptSlider")
        tracks = panel(page, "Slider of Concept Slider").locator(".track")
        box = tracks.first.bounding_box()
        assert box
        y, offset = box["y"] + box["height"] / 2, page.evaluate(OFFSET)
        places = [box["x"] + share * box["width"] for share in (0.2, 0.3, 0.4)]
        page.touchscreen.tap(places[0], y)
        assert values(page)["scale"] == pytest.approx(-3, abs=0.1)
        finger = page.context.new_cdp_session(page)
        for kind, x in zip(("touchStart", "touchMove", "touchMove"), places, strict=True):
            points = [{"x": x, "y": y}]
            finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        assert values(page)["scale"] == pytest.approx(-1, abs=0.1)
        assert page.evaluate(OFFSET) == offset

        # A second finger, on another thumb, while the first one drags: it is not heard.
        first, second = (
            {"x": box["x"] + 0.4 * box["width"], "y": y, "id": 1},
            {"x": box["x"] + 0.9 * box["width"], "y": middle(tracks.last)[1], "id": 2},
        )
        before = values(page)
        for kind, points in (
            ("touchStart", [first]), ("touchStart", [first, second]),
            ("touchMove", [first | {"x": places[1]}, second | {"x": places[0]}]),
            ("touchEnd", [first | {"x": places[1]}]), ("touchEnd", []),
        ):  # fmt: skip
            finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        assert values(page)["scale"] == pytest.approx(-2, abs=0.1)
        window = ("start_percent", "end_percent")
        assert [values(page)[name] for name in window] == [before[name] for name in window]
        assert page.evaluate(CHANGES) == 0
        page.evaluate(SET_VUE, False)


def values(page: Page) -> dict[str, Any]:
    """Read the values that Concept Slider would be queued with."""
    return page.evaluate(WIDGETS)


def middle(element: Locator) -> tuple[float, float]:
    """Return the middle of an element on the screen."""
    box = element.bounding_box()
    assert box
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def drag(page: Page, thumb: Locator, share: float) -> None:
    """Drag a thumb by a share of its track."""
    width = thumb.evaluate("(t) => t.parentElement.getBoundingClientRect().width")
    x, y = middle(thumb)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + share * width, y, steps=4)
    page.mouse.up()
