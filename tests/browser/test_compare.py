"""Sample images have captions and are compared in the large view, in both renderers."""

from __future__ import annotations

from io import BytesIO
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, Route, expect

from .pages import (
    COMMAND,
    DISPATCH,
    DREAMBOOTH,
    ROOT,
    contains,
    drop,
    look_at,
    message,
    panel,
    shoot,
)

UNZIP = ROOT / "workflows" / "17 Split an image.json"
TRAINING = "Training of UnZipLoRA Train (one picture into two LoRAs)"
SIDE, GAP = 48, 4
RATIO = (3 * SIDE + 2 * GAP) / SIDE
STEPS = [100, 200, 300]
PARTS = ["joint", "content", "style"]
NODES = "() => app.graph.nodes.length"


SHOW_IMAGES = """
    (titles) => {
        const nodes = titles.map((title, n) => {
            const node = LiteGraph.createNode("PreviewImage");
            app.graph.add(node);
            [node.title, node.pos] = [title, [100 + 400 * n, 200]];
            const images = [{ filename: `${100 * (n + 1)}.png`, subfolder: "", type: "temp" }];
            const id = String(node.id);
            const detail = { node: id, display_node: id, output: { images }, prompt_id: "" };
            app.api.dispatchEvent(new CustomEvent("executed", { detail }));
            return node;
        });
        app.canvas.selectItems(nodes);
        app.canvas.setDirty(true, true);
    }
"""
SELECT_ONE = "() => app.canvas.selectItems([app.graph.nodes[0]])"


def image(route: Route) -> None:
    """Answer with an image of a node of SHOW_IMAGES."""
    step = int(parse_qs(urlsplit(route.request.url).query)["filename"][0].removesuffix(".png"))
    answer(route, Image.new("RGB", (SIDE, SIDE), (step // 2,) * 3))


def answer(route: Route, picture: Image.Image) -> None:
    file = BytesIO()
    picture.save(file, "PNG")
    route.fulfill(body=file.getvalue(), content_type="image/png")


def strip(route: Route) -> None:
    """Answer with the images of a step: the later the step, the lighter they are."""
    step = int(urlsplit(route.request.url).path.rsplit("/", 1)[1])
    picture = Image.new("RGB", (3 * SIDE + 2 * GAP, SIDE))
    for n in range(3):
        colour = tuple(step // 2 + 80 * (channel == n) for channel in range(3))
        picture.paste(colour, (n * (SIDE + GAP), 0, n * (SIDE + GAP) + SIDE, SIDE))
    answer(route, picture)


def colours(view: Locator, share: float) -> list[tuple[int, ...]]:
    """Return what is on the screen at a share of the width of each part, at half of its height."""
    parts = view.locator(".divider span").count()
    with Image.open(BytesIO(view.screenshot())) as shot:
        rgb = shot.convert("RGB")
        places = [round((n + share) * rgb.width / parts) for n in range(parts)]
        return [rgb.getpixel((x, rgb.height // 2)) for x in places]


def steps_at(view: Locator, share: float) -> list[int]:
    """Tell which steps are seen there, from `strip`."""
    return [round(2 * min(colour) / 100) * 100 for colour in colours(view, share)]


def test_sample_images_have_captions_and_two_steps_are_compared(tab: Page, renderer: str) -> None:
    tab.route("**/samples/*", strip)
    drop(tab, UNZIP)
    look_at(tab, "UnZipLoRATrain")
    captions = [PARTS, None, ["joint", "content", "another style"]]
    tab.evaluate(DISPATCH, message(tab, "UnZipLoRATrain", 300, samples=STEPS, captions=captions))
    shown = panel(tab, TRAINING)
    figure = shown.locator("figure")
    texts = figure.locator(".captions span")
    expect(texts).to_have_text(["joint", "content", "another style"])
    shown.get_by_label("Sample images over time").press("ArrowLeft")
    expect(texts).to_have_text(PARTS)
    picture = figure.locator("img")
    expect(picture).to_have_attribute("alt", "Sample images of step 200")
    expect(picture).to_have_js_property("complete", True)
    box = picture.bounding_box()
    assert box and box["width"] / box["height"] == pytest.approx(RATIO, rel=0.02)
    for n, text in enumerate(texts.all()):
        below = text.bounding_box()
        assert below and below["y"] >= box["y"] + box["height"] - 1
        middle = below["x"] + below["width"] / 2
        assert middle == pytest.approx(box["x"] + (n + 0.5) * box["width"] / 3, abs=3)
    shoot(tab, f"{renderer}_captions")

    nodes = tab.evaluate(NODES)
    picture.press("Enter")
    large = tab.get_by_role("dialog")
    left, right = large.get_by_label("Left picture"), large.get_by_label("Right picture")
    expect(large.locator("figure img")).to_have_attribute("alt", "Sample images of step 200")
    expect(left).to_be_hidden()
    large.get_by_role("button", name="Divider").click()
    expect(left).to_have_value("step 100")
    expect(right).to_have_value("step 200")
    divider, stack = large.get_by_role("slider", name="Divider"), large.locator(".stack")
    expect(large.locator("img").last).to_have_js_property("complete", True)
    assert steps_at(stack, 0.25) == [100] * 3 and steps_at(stack, 0.75) == [200] * 3
    shoot(tab, f"{renderer}_compare_divider")
    for key, percent in (("ArrowRight", 52), ("PageDown", 42), ("Home", 0), ("End", 100)):
        divider.press(key)
        expect(divider).to_have_attribute("aria-valuenow", str(percent))
    assert steps_at(stack, 0.75) == [100] * 3
    box = stack.bounding_box()
    assert box
    part = box["width"] / 3
    tab.mouse.move(box["x"] + 1.9 * part, box["y"] + 9)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 1.2 * part, box["y"] + 9, steps=3)
    tab.mouse.up()
    assert int(divider.get_attribute("aria-valuenow") or 0) == pytest.approx(20, abs=1)
    assert steps_at(stack, 0.1) == [100] * 3 and steps_at(stack, 0.4) == [200] * 3
    right.select_option("step 300")
    expect(large.locator(".captions span").last).to_have_text("style | another style")

    large.get_by_role("button", name="Side by side").click()
    expect(large.locator("figcaption")).to_have_text(["step 100", "step 300"])
    first, second = (figure.bounding_box() for figure in large.locator("figure").all())
    assert first and second and second["y"] > first["y"] + first["height"]  # wide ones
    for name in ("figcaption", ".captions span", "img"):
        expect(large.locator(name).last).to_be_in_viewport(ratio=0.99)
    shoot(tab, f"{renderer}_compare_beside")

    tab.keyboard.press("Delete")  # no key of the dialog changes the workflow
    assert tab.evaluate(NODES) == nodes
    names = ["Left picture", "One", "Divider", "Side by side", "Right picture", "Close"]
    left.focus()
    for name in names[1:]:
        tab.keyboard.press("Tab")
        expect(large.get_by_label(name).or_(large.get_by_text(name, exact=True))).to_be_focused()
    tab.keyboard.press("Escape")
    expect(large).to_have_count(0)
    expect(picture).to_be_focused()
    tab.unroute("**/samples/*")


def test_single_sample_opens_large_without_anything_to_compare(tab: Page, renderer: str) -> None:
    tab.route("**/samples/*", strip)
    drop(tab, DREAMBOOTH)
    look_at(tab, "TrainDreamBoothLoRA")
    prompt = "a photo of sks dog in a garden with many flowers and a very long name"
    captions = [[prompt, "a dog", "a cat"]]
    said = message(tab, "TrainDreamBoothLoRA", 100, samples=[100], captions=captions)
    tab.evaluate(DISPATCH, said)
    shown = panel(tab, "Training of Train DreamBooth LoRA")
    first = shown.locator(".captions span").first
    expect(first).to_have_attribute("title", contains(prompt))
    assert first.evaluate("(e) => e.scrollWidth > e.clientWidth")
    shown.locator("figure img").click()
    large = tab.get_by_role("dialog")
    expect(large.get_by_role("button", name="Divider")).to_be_hidden()
    shoot(tab, f"{renderer}_large")
    large.locator("figure img").click()
    expect(large).to_have_count(0)
    tab.unroute("**/samples/*")


def test_images_of_two_selected_nodes_are_compared(tab: Page, renderer: str) -> None:
    tab.route("**/view?*", image)
    tab.evaluate(SHOW_IMAGES, ["Plain sum", "Merge"])
    button = tab.get_by_role("button", name="Compare images")
    expect(button).to_be_visible()
    shoot(tab, f"{renderer}_compare_button")
    button.click()
    large = tab.get_by_role("dialog")
    expect(large.get_by_label("Left picture")).to_have_value("Plain sum")
    expect(large.get_by_label("Right picture")).to_have_value("Merge")
    expect(large.get_by_role("slider", name="Divider")).to_be_focused()
    expect(large.locator("img").last).to_have_js_property("complete", True)
    (left, right) = (steps_at(large.locator(".stack"), share)[0] for share in (0.1, 0.9))
    assert (left, right) == (100, 200)
    shoot(tab, f"{renderer}_compare_images")
    tab.keyboard.press("Escape")
    tab.evaluate(SELECT_ONE)
    expect(button).to_have_count(0)
    tab.evaluate(COMMAND, "ziplora.compare_images")
    expect(tab.get_by_text("Select two nodes that show images").last).to_be_visible()
    tab.unroute("**/view?*")
