"""A picked LoRA file or folder of pictures shows its contents on the node, in both renderers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import safetensors.torch
import torch
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from sandbox.paths import ROOT
from sandbox.server import ComfyServer
from ziplora_core.files.writer import lora_bytes
from ziplora_core.lora.factors import LoraFactors

from .pages import DREAMBOOTH, MERGE, SLIDERS, contains, drop, look_at, panel, shoot

SAVED = ROOT / "workflows" / "03 Apply a saved merge.json"
PAIR = "Load LoRA Pair (content + style)"
PUT = "Put into the prompt"
WORDS = "zqx dog, on a beach"
MODULE = "lora_unet_middle_block_1_transformer_blocks_5_attn2_to_k"
OLDER = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
SET = """
    ([type, name, value]) => {
        const node = app.graph.nodes.find((n) => n.type === type);
        const widget = node.widgets.find((w) => w.name === name);
        widget.value = value;
        widget.callback?.(value, app.canvas, node);
        app.extensionManager.workflow.activeWorkflow.changeTracker.checkState();
    }
"""
PROMPTS = """
    () => Object.fromEntries(app.graph.nodes.filter((n) => n.type === "CLIPTextEncode")
        .map((n) => [n.title, n.widgets[0].value]))
"""
TEXTS = """
    () => app.graph.nodes.filter((n) => n.type === "CLIPTextEncode").map((n) => n.widgets[0].value)
"""
LIST = """
    ([type, name]) => {
        const node = app.graph.nodes.find((n) => n.type === type);
        const widget = node.widgets.find((w) => w.name === name);
        const [x, y] = app.canvas.convertOffsetToCanvas(
            [node.pos[0] + node.size[0] / 2, node.pos[1] + widget.last_y + 10]);
        const box = app.canvas.canvas.getBoundingClientRect();
        return [box.left + x, box.top + y];
    }
"""
"""Where the classic canvas has a widget."""
QUEUED = """
    async (type) => Object.values((await app.graphToPrompt()).output)
        .find((n) => n.class_type === type).inputs
"""


@pytest.fixture(scope="module", autouse=True)
def files(server: ComfyServer) -> Iterator[None]:
    """A LoRA with a picture and trigger words, and one for another base."""
    loras = server.models / "loras"
    module = {MODULE: LoraFactors(torch.ones(4, 2048), torch.ones(64, 4))}
    made = {
        "glance.safetensors": lora_bytes(module, {"modelspec.trigger_phrase": WORDS}),
        "glance_older.safetensors": safetensors.torch.save({
            f"{OLDER}.lora_down.weight": torch.ones(2, 768),
            f"{OLDER}.lora_up.weight": torch.ones(320, 2),
        }),
    }  # fmt: skip
    for name, content in made.items():
        (loras / name).write_bytes(content)
    picture = loras / "glance.preview.png"
    Image.linear_gradient("L").resize((640, 900)).save(picture)
    yield
    for path in (*(loras / name for name in made), picture):
        path.unlink()


@pytest.fixture(scope="module")
def folder(server: ComfyServer) -> Iterator[str]:
    """A folder of six pictures, the first turned by its EXIF, one of them damaged."""
    place = server.base / "input" / "glance_pictures"
    place.mkdir()
    for n in range(6):
        image = Image.new("RGB", (160, 120), (40 * n, 120, 200 - 30 * n))
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(place / f"{n}.jpg", exif=exif if n == 0 else Image.Exif())
        (place / f"{n}.txt").write_text(f"zqx dog number {n}", "utf-8")
    (place / "2.jpg").write_bytes(b"\xff\xd8 damaged")
    yield place.name
    for path in place.iterdir():
        path.unlink()
    place.rmdir()


def test_card_of_a_pair_shows_the_files_and_puts_trigger_words_into_their_own_prompts(
    tab: Page, renderer: str
) -> None:
    drop(tab, MERGE)
    look_at(tab, "LoadLoRAPair")
    content, style = rows(tab, PAIR)
    expect(content).to_be_visible()  # those of the workflow
    tab.evaluate(SET, ["LoadLoRAPair", "content_lora", "glance.safetensors"])
    tab.evaluate(SET, ["LoadLoRAPair", "style_lora", "glance_older.safetensors"])
    expect(content).to_contain_text("content · SDXL · rank 4 · 35 KB")
    expect(content).to_contain_text(f"trigger words: {WORDS}")
    assert width_of(content.locator("img")) > 300
    expect(style).to_contain_text("style · Stable Diffusion 1.x · rank 2")
    expect(style.get_by_role("button")).to_have_count(0)

    before = tab.evaluate(PROMPTS)
    own = "Content prompt: the subject alone"
    put = content.get_by_role("button", name=PUT)
    put.click()
    expect(content.get_by_role("status")).to_have_text(f"Put into {own}.")
    assert tab.evaluate(PROMPTS) == {**before, own: f"{WORDS}, {before[own]}"}
    put.click()
    expect(content.get_by_role("status")).to_have_text(f"Already in {own}.")
    shoot(tab, f"{renderer}_card")
    assert tab.evaluate(PROMPTS) == {**before, own: f"{WORDS}, {before[own]}"}
    tab.keyboard.press("Control+z")
    tab.wait_for_function(f"(own) => ({PROMPTS})()[own] === {before[own]!r}", arg=own)
    assert tab.evaluate(PROMPTS) == before

    tab.evaluate(SET, ["LoadLoRAPair", "content_lora", "None"])
    expect(rows(tab, PAIR)[0]).to_be_hidden()
    expect(rows(tab, PAIR)[1]).to_be_visible()


def test_card_of_a_slider_follows_the_model_to_the_positive_prompt_or_else_copies(
    tab: Page, renderer: str
) -> None:
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    drop(tab, SLIDERS)
    look_at(tab, "ConceptSlider")
    (row,) = rows(tab, "Concept Slider")
    expect(row.locator("[data-wrong]")).to_contain_text("no such file in ComfyUI's loras folders")
    tab.evaluate(SET, ["ConceptSlider", "slider", "glance.safetensors"])
    row.get_by_role("button", name=PUT).click()
    expect(row.get_by_role("status")).to_have_text("Put into Prompt: the image.")
    shoot(tab, f"{renderer}_card_of_slider")
    positive, negative = tab.evaluate(TEXTS)
    assert positive == f"{WORDS}, a photo of a person in a garden"
    assert WORDS not in negative
    tab.evaluate("() => app.graph.getNodeById(3).disconnectOutput(0)")
    row.get_by_role("button", name=PUT).click()
    expect(row.get_by_role("status")).to_have_text("No prompt is connected: copied.")
    assert tab.evaluate("() => navigator.clipboard.readText()") == WORDS


def test_card_of_a_merge_follows_it_through_the_next_node_to_the_positive_prompt(
    tab: Page, renderer: str
) -> None:
    drop(tab, SAVED)
    tab.evaluate(SET, ["LoadMergedLoRA", "merged_lora", "glance.safetensors"])
    look_at(tab, "LoadMergedLoRA")
    before = tab.evaluate(PROMPTS)
    (row,) = rows(tab, "Load Merged LoRA")
    row.get_by_role("button", name=PUT).click()
    expect(row.get_by_role("status")).to_have_text(contains("Put into"))
    now = tab.evaluate(PROMPTS)
    changed = {title: text for title, text in now.items() if text != before[title]}
    shoot(tab, f"{renderer}_card_of_merge")
    ((title, text),) = changed.items()
    assert "Negative" not in title and text == f"{WORDS}, {before[title]}"


def test_trigger_words_go_through_a_subgraph_to_the_text_linked_to_it_or_shown_on_it(
    tab: Page, renderer: str
) -> None:
    drop(tab, MERGE)
    tab.evaluate(SET, ["LoadLoRAPair", "content_lora", "glance.safetensors"])
    tab.evaluate("""() => {
        const text = LiteGraph.createNode("PrimitiveStringMultiline");
        const node = app.graph.nodes.find((n) => n.title.startsWith("Content prompt"));
        app.graph.add(text);
        text.widgets[0].value = "a photo";
        text.connect(0, node, node.inputs.findIndex((i) => i.widget?.name === "text"));
        app.graph.convertToSubgraph(new Set([node]));
    }""")
    look_at(tab, "LoadLoRAPair")
    content, _style = rows(tab, PAIR)
    content.get_by_role("button", name=PUT).click()
    expect(content.get_by_role("status")).to_have_text(contains("Put into"))
    text = "app.graph.nodes.find((n) => n.type === 'PrimitiveStringMultiline').widgets[0].value"
    assert tab.evaluate(f"() => {text}") == f"{WORDS}, a photo"
    tab.evaluate("""() => {
        const holder = app.graph.nodes.find((n) => n.subgraph);
        holder.disconnectInput(holder.inputs.findIndex(({ name }) => name === "text"));
        holder.widgets[0].value = "a drawing";
    }""")
    content.get_by_role("button", name=PUT).click()
    text = "app.graph.nodes.find((n) => n.subgraph).widgets[0].value"
    tab.wait_for_function(f"(wanted) => {text} === wanted", arg=f"{WORDS}, a drawing")


def test_files_of_another_base_are_marked_in_the_list(tab: Page, renderer: str) -> None:
    drop(tab, MERGE)
    tab.evaluate(SET, ["LoadLoRAPair", "content_lora", "glance.safetensors"])
    look_at(tab, "LoadLoRAPair")
    if renderer == "vue":
        tab.get_by_role("combobox", name="content_lora").click()
        entries = tab.get_by_test_id("widget-select-default-viewport")
        filtered = tab.get_by_test_id("widget-select-default-search-input")
    else:
        tab.mouse.click(*tab.evaluate(LIST, ["LoadLoRAPair", "content_lora"]))
        entries = tab.locator(".litecontextmenu")
        filtered = entries.get_by_placeholder("Filter list")
    marked = "glance_older.safetensors · Stable Diffusion 1.x"
    other = entries.get_by_text(marked, exact=True).last  # newer frontends measure the longest
    expect(other).to_be_visible()
    expect(entries.get_by_text("glance.safetensors", exact=True)).to_be_visible()
    said = {text.strip() for text in entries.get_by_text(" · ").all_inner_texts()}
    assert {text for text in said if text.startswith("glance")} == {marked}
    shoot(tab, f"{renderer}_list")
    filtered.fill(" · ")
    expect(entries.get_by_text("glance.safetensors", exact=True)).to_be_hidden()
    other.click()
    assert tab.evaluate(QUEUED, "LoadLoRAPair")["content_lora"] == "glance_older.safetensors"
    expect(rows(tab, PAIR)[0]).to_contain_text("Stable Diffusion 1.x")


def test_folder_of_training_images_shows_its_first_pictures_and_captions(
    tab: Page, renderer: str, folder: str, server: ComfyServer
) -> None:
    drop(tab, DREAMBOOTH)
    look_at(tab, "LoadTrainingImages")
    shown = panel(tab, "Pictures of Load Training Images (folder)")
    expect(shown.locator("img")).to_have_count(4)  # those of the workflow's folder
    expect(shown.get_by_text("and 1 more")).to_be_visible()
    tab.evaluate(SET, ["LoadTrainingImages", "folder", folder])
    expect(shown.get_by_text("and 2 more")).to_be_visible()
    expect(shown.locator("img")).to_have_count(3)  # one is damaged
    first = shown.get_by_alt_text("zqx dog number 0")
    assert width_of(first) == 120  # upright
    expect(shown.get_by_text("zqx dog number 2")).to_be_visible()
    shoot(tab, f"{renderer}_folder")
    first.click()
    expect(tab.locator("dialog img")).to_be_visible()
    tab.keyboard.press("Escape")
    expect(tab.locator("dialog img")).to_have_count(0)

    caption = server.base / "input" / folder / "1.txt"
    text = caption.read_text("utf-8")
    caption.unlink()
    tab.evaluate("() => app.refreshComboInNodes()")  # as R does
    expect(shown.locator("[data-wrong]")).to_contain_text("no caption for 1 of 6 pictures (1.jpg)")
    shoot(tab, f"{renderer}_folder_without_a_caption")
    caption.write_text(text, "utf-8")


def rows(page: Page, title: str) -> list[Locator]:
    """The files on the card of a node, with or without one."""
    files = panel(page, f"Files of {title}").locator(".file")
    return [files.nth(n) for n in range(files.count())]


def width_of(image: Locator) -> Any:
    """The width of a loaded picture in its own pixels."""
    expect(image).to_have_js_property("complete", True)
    return image.evaluate("(image) => image.naturalWidth")
