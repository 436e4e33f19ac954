"""What a node's last run said: why it failed, what it belongs to, and that it is still there after
the page was reloaded; in both renderers."""

from __future__ import annotations

import pytest
import safetensors.torch
from playwright.sync_api import Page, expect

from sandbox.paths import ROOT
from sandbox.server import ComfyServer

from .pages import (
    NEW_BLANK_WORKFLOW,
    RUN_MS,
    contains,
    drop,
    look_at,
    override,
    report,
    run,
    shoot,
)

TOOLS = ROOT / "workflows" / "08 Merge without training.json"
SET = """
    ([type, name, value]) => {
        const node = app.graph.nodes.find((n) => n.type === type);
        const widget = node.widgets.find((w) => w.name === name);
        widget.value = value;
        widget.callback?.(value, app.canvas, node);
        app.extensionManager.workflow.activeWorkflow.changeTracker.checkState();
    }
"""
"""Set a widget as a person does, who then lets the mouse go."""
OLD = "data-ziplora-old"


@pytest.fixture
def broken(server: ComfyServer) -> str:
    """The name of a LoRA file that has NaN in it."""

    loras = server.models / "loras"
    tensors = safetensors.torch.load_file(loras / "my_subject.safetensors")
    safetensors.torch.save_file(
        {k: v * float("nan") if "lora_up" in k else v for k, v in tensors.items()},
        loras / "broken.safetensors",
    )
    return "broken.safetensors"


def test_error_is_in_the_report_of_its_node_and_in_a_toast(
    tab: Page, renderer: str, broken: str
) -> None:
    drop(tab, TOOLS)
    override(tab)
    tab.evaluate(SET, ["LoadLoRAPair", "content_lora", broken])
    run(tab)
    look_at(tab, "LoadLoRAPair")
    shown = report(tab, "Load LoRA Pair (content + style)")
    expect(shown).to_have_value(contains("found NaN or infinity"), timeout=RUN_MS)
    expect(tab.get_by_text(contains("found NaN or infinity")).first).to_be_visible()
    shoot(tab, f"{renderer}_error")


def test_report_of_other_inputs_says_so_until_they_are_back(tab: Page, renderer: str) -> None:
    drop(tab, TOOLS)
    override(tab)
    run(tab)
    look_at(tab, "MergeLoRAs")
    pair, merge = (
        report(tab, name)
        for name in ("Load LoRA Pair (content + style)", "Merge LoRAs (no training)")
    )
    expect(merge).to_have_value(contains("direct: 1 ×"), timeout=RUN_MS)
    before = merge.input_value()
    wait_until_done(tab)
    tab.evaluate(SET, ["MergeLoRAs", "content_weight", 0.5])
    expect(merge).to_have_value(f"Of other inputs than the present ones:\n{before}")
    shoot(tab, f"{renderer}_old")
    expect(pair).not_to_have_attribute(OLD, "")
    tab.evaluate(SET, ["MergeLoRAs", "content_weight", 1])
    expect(merge).to_have_value(before)
    tab.evaluate(SET, ["LoadLoRAPair", "content_strength", 0.5])  # of a node before it
    expect(merge).to_have_value(contains("Of other inputs"))
    expect(pair).to_have_attribute(OLD, "")
    run(tab)
    expect(merge).not_to_have_value(contains("Of other inputs"), timeout=RUN_MS)
    expect(pair).not_to_have_attribute(OLD, "")


def test_results_are_there_again_after_a_reload_and_when_the_workflow_is_dropped_again(
    page: Page,
) -> None:
    drop(page, TOOLS)
    override(page)
    run(page)
    merge = report(page, "Merge LoRAs (no training)")
    expect(merge).to_have_value(contains("direct: 1 ×"), timeout=RUN_MS)
    before = merge.input_value()
    wait_until_done(page)
    page.reload()
    expect(merge).to_have_value(before)
    page.evaluate(NEW_BLANK_WORKFLOW)
    drop(page, TOOLS)
    expect(merge).to_have_value(contains(before))


def wait_until_done(page: Page) -> None:
    page.wait_for_function(
        "async () => !(await (await app.api.fetchApi('/queue')).json()).queue_running.length",
        timeout=RUN_MS,
    )
