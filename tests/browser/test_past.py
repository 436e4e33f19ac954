"""Past trainings in the sidebar: looked at, compared, opened, exported, continued and deleted."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from sandbox.server import ComfyServer
from ziplora_core.training.interface import TrainingRecord
from ziplora_core.training.records import RecordFolder
from ziplora_core.training.run_history import Run
from ziplora_core.training.run_record import RunRecord

from ..server.dreambooth import test_train
from ..server.graph import Graph
from .conftest import open_page
from .pages import (
    DISPATCH,
    DREAMBOOTH,
    INK,
    RENDERERS,
    RUN_MS,
    chart_of,
    drop,
    last_step,
    look_at,
    message,
    override,
    panel,
    run,
    see_step,
    shoot,
)

ONE, OTHER = "a photo of sks dog, rank two", "a photo of sks dog, rank four"
TRAINS = "() => app.graph.nodes.some((node) => node.type === 'TrainDreamBoothLoRA')"
DRAWN = "(image) => image.complete && image.naturalWidth > 0"
KEEP_LABELS = """
    (chart) => {
        window.labels = [];
        const keep = () => labels.push(chart.getAttribute("aria-label"));
        new MutationObserver(keep).observe(chart, { attributeFilter: ["aria-label"] });
    }
"""
"""Keep all that a chart says of itself from now on."""


@pytest.fixture(scope="module")
def two(server: ComfyServer) -> tuple[str, str]:
    """Two finished trainings with samples, queued with a workflow as the page does."""
    workflow = json.loads(DREAMBOOTH.read_text(encoding="utf-8"))
    for prompt, rank in ((ONE, 2), (OTHER, 4)):
        graph = Graph()
        few = {"sample_every": 3, "sample_prompts": ""}
        options = graph.out("TrainingOptions", **{**test_train.OPTIONS, **few})
        node = test_train.train(
            graph, test_train.plain(graph), prompt=prompt, rank=rank, steps=6, options=options
        )
        test_train.save(graph, node, f"rank_{rank}")
        assert server.run(graph.prompt, workflow=workflow).status == "success"
    return ONE, OTHER


def open_tab(page: Page) -> Any:
    """Open the sidebar's tab and return it."""
    shown = page.get_by_role("region", name="Past trainings")
    if not shown.is_visible():
        page.get_by_role("button", name="Past trainings", exact=True).click()
    expect(shown).to_be_visible()
    return shown


def close_tab(page: Page) -> None:
    page.get_by_role("button", name="Past trainings", exact=True).click()
    expect(page.get_by_role("region", name="Past trainings")).to_have_count(0)


def test_past_trainings_are_listed_opened_compared_and_exported(
    tab: Page, renderer: str, two: tuple[str, str]
) -> None:
    shown = open_tab(tab)
    rows = [shown.get_by_role("listitem").filter(has_text=title) for title in two]
    for row in rows:
        expect(row).to_contain_text("DreamBooth · step 6 of 6 · finished")
        tab.wait_for_function(DRAWN, arg=row.locator("img").element_handle())
    shoot(tab, f"{renderer}_past_list")

    rows[0].get_by_role("button").click()
    chart = chart_of(shown)
    expect(chart).to_have_attribute("aria-label", re.compile("step 6"))
    assert chart.evaluate(INK) > 300
    picture = shown.get_by_role("button", name="Sample images of step 6")
    tab.wait_for_function(DRAWN, arg=picture.element_handle())
    shown.get_by_label("Sample images over time").press("ArrowLeft")
    expect(shown.get_by_role("button", name="Sample images of step 3")).to_be_visible()
    expect(shown).to_contain_text("rank_2_00001_.safetensors · step 6")
    expect(shown.get_by_role("row", name="rank 2")).to_be_visible()
    expect(shown.get_by_role("row", name="warm_up_steps 2")).to_be_visible()
    shoot(tab, f"{renderer}_past_one")
    with tab.expect_download() as download:
        shown.get_by_role("link", name="CSV").click()
    text = download.value.path().read_text().splitlines()
    assert text[0] == "step,loss,instance" and text[-1].startswith("6,")
    with tab.expect_download() as download:
        shown.get_by_role("link", name="TensorBoard").click()
    assert download.value.suggested_filename.startswith("events.out.tfevents.")

    shown.get_by_role("button", name="All past trainings").click()
    compare = shown.get_by_role("button", name="Compare", exact=True)
    for title in two:
        expect(compare).to_be_disabled()
        shown.get_by_role("checkbox", name=f"Compare {title}").check()
    compare.click()
    expect(shown.locator(".legend")).to_contain_text(re.compile(r"A [\d.]+.*B [\d.]+"))
    expect(shown.get_by_role("row", name="rank 2 4")).to_be_visible()
    expect(shown.get_by_role("row", name="steps")).to_have_count(0)  # the same in both
    shown.get_by_label("Sample images over time").first.press("ArrowLeft")
    expect(shown.get_by_role("button", name="Sample images of step 3")).to_have_count(2)
    shoot(tab, f"{renderer}_past_compared")

    shown.get_by_role("button", name="All past trainings").click()
    rows[1].get_by_role("button").click()
    shown.get_by_role("button", name="Open workflow").click()
    tab.wait_for_function(TRAINS)
    expect(tab.get_by_test_id("topbar-workflow-tabs")).to_contain_text("rank four")
    close_tab(tab)


def test_past_training_is_deleted_when_the_dialog_is_confirmed(
    tab: Page, renderer: str, server: ComfyServer
) -> None:
    title = f"a training to delete in {renderer}"
    name = f"{len(renderer):016x}-00000000"
    kept = RecordFolder.beside(server.output / "ziplora" / "checkpoints" / name)
    done = Run("1", 3)
    done.state = "finished"
    done.update(TrainingRecord({"loss": [0.3, 0.2, 0.1]}, 3))
    said = {"method": "DreamBooth", "title": title, "key": "", "settings": []}
    RunRecord(kept, done, said).write()
    shown = open_tab(tab)
    shown.get_by_role("button", name=title).click()
    expect(shown).to_contain_text("Its LoRA is not in a file.")
    for answer in ("Cancel", "Delete"):
        assert kept.path.exists()
        shown.get_by_role("button", name="Delete").click()
        dialog = tab.get_by_role("dialog")
        expect(dialog).to_contain_text("LoRA files stay.")
        dialog.get_by_role("button", name=answer).click()
        expect(dialog).to_have_count(0)
    expect(shown.get_by_role("status").first).to_have_text("Deleted.")
    expect(shown.get_by_role("button", name=title)).to_have_count(0)
    assert not kept.path.exists()
    close_tab(tab)


def test_stopped_training_goes_on_by_the_button_on_its_panel(tab: Page, renderer: str) -> None:
    drop(tab, DREAMBOOTH)
    seed = 100 + RENDERERS[renderer]
    small = {"steps": 5000, "seed": seed, "prompt": f"a dog that goes on in {renderer}"}
    override(tab, {"TrainDreamBoothLoRA": small, "TrainingOptions": {"sample_every": 0}})
    look_at(tab, "TrainDreamBoothLoRA")
    run(tab)
    shown = panel(tab, "Training of Train DreamBooth LoRA")
    stop, more = shown.get_by_text("Stop and keep"), shown.get_by_text("Continue", exact=True)
    expect(stop).to_be_enabled(timeout=RUN_MS)
    see_step(shown, 3)
    expect(more).to_be_hidden()
    stop.click()
    expect(shown).to_contain_text("Stopped, and kept what was learned", timeout=RUN_MS)
    expect(stop).to_be_hidden()
    shoot(tab, f"{renderer}_stopped_with_continue")
    before = last_step(chart_of(shown).get_attribute("aria-label") or "")
    chart_of(shown).evaluate(KEEP_LABELS)
    with tab.expect_request("**/prompt") as sent:
        more.click()
    prompt, outputs = (
        sent.value.post_data_json[key] for key in ("prompt", "partial_execution_targets")
    )
    kinds = {prompt[output]["class_type"] for output in outputs}
    assert {"SaveTrainedLoRA", "SaveImage"} <= kinds
    assert "PastTrainings" not in kinds and "LoadTrainingImages" not in kinds
    expect(stop).to_be_enabled(timeout=RUN_MS)
    see_step(shown, before + 2)
    assert all(last_step(label) >= before for label in tab.evaluate("labels"))  # the curve stays
    stop.click()
    expect(shown).to_contain_text("Stopped, and kept what was learned", timeout=RUN_MS)


LOOKS_ELSEWHERE = """
    () => {
        window.told = [];
        window.Notification = class extends EventTarget {
            static permission = "default";
            static async requestPermission() { return (this.permission = "granted"); }
            constructor(title, { body }) { super(); told.push(`${title}: ${body}`); }
        };
        Object.defineProperty(document, "hidden", { get: () => true, configurable: true });
    }
"""
"""The browser's part of a notification: headless, nobody can allow one or look elsewhere."""
LATER = "(by) => { const { now } = Date; Date.now = () => now() + by; }"


@pytest.mark.thorough
def test_long_training_that_ends_unseen_is_notified_once_the_bell_was_pressed(
    browser: Browser, server: ComfyServer
) -> None:
    with open_page(browser, server) as page:
        page.evaluate(LOOKS_ELSEWHERE)
        drop(page, DREAMBOOTH)
        end(page, "before", 61_000)
        shown = open_tab(page)
        bell = shown.get_by_role("button", name="Notify me")
        expect(bell).to_have_attribute("aria-pressed", "false")
        bell.click()
        expect(bell).to_have_attribute("aria-pressed", "true")
        end(page, "short", 1000)
        end(page, "long", 61_000)
        bell.click()
        expect(bell).to_have_attribute("aria-pressed", "false")
        end(page, "after", 61_000)
        assert page.evaluate("told") == ["A training has ended: step 9 of 400"]


def end(page: Page, name: str, milliseconds: int) -> None:
    """Let a training of this length begin and end."""
    for state in ("running", "finished"):
        page.evaluate(DISPATCH, message(page, "TrainDreamBoothLoRA", 9, run=name, state=state))
        page.evaluate(LATER, milliseconds)
