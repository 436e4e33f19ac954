"""In Chinese, every node, input and output has its Chinese name on the canvas, and Chinese help."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from sandbox.locales import written
from sandbox.server import ComfyServer

from .conftest import open_page
from .pages import DISPATCH, message, panel, shoot

NODES = """
    () => {
        const ours = Object.entries(LiteGraph.registered_node_types)
            .filter(([, node]) => node.nodeData?.python_module === "custom_nodes.ziplora");
        return Object.fromEntries(ours.map(([type]) => {
            const node = LiteGraph.createNode(type);
            const labels = [
                ...node.inputs.map((input) => [input.name, input.localized_name]),
                ...(node.widgets ?? []).map((widget) => [widget.name, widget.label]),
            ];
            const outputs = node.outputs.map((output) => output.localized_name);
            const { category } = node.constructor;
            return [type, { title: node.title, category, labels, outputs }];
        }));
    }
"""
SHOW = """
    (type) => {
        app.graph.clear();
        const node = LiteGraph.createNode(type);
        app.graph.add(node);
        app.canvas.ds.scale = 1;
        app.canvas.ds.offset = [300, 150];
        app.canvas.selectNode(node);
        app.canvas.setDirty(true, true);
    }
"""


@pytest.fixture
def chinese_page(browser: Browser, server: ComfyServer) -> Iterator[Page]:
    server.post("/settings", {"Comfy.Locale": "zh"})
    try:
        with open_page(browser, server) as tab:
            yield tab
            tab.evaluate("app.extensionManager.setting.set('Comfy.RightSidePanel.IsOpen', false)")
    finally:
        server.post("/settings", {"Comfy.Locale": "en"})


def test_nodes_in_chinese_are_named_in_chinese(chinese_page: Page) -> None:
    words, categories = written("zh"), written("zh", "main")["nodeCategories"]
    nodes: dict[str, Any] = chinese_page.evaluate(NODES)
    assert set(nodes) == set(words)
    for node_id, node in nodes.items():
        here = words[node_id]
        assert node["title"] == here["display_name"]
        assert set(node["category"].split("/")) <= set(categories.values())
        for name, label in node["labels"]:
            if name in here["inputs"]:
                assert label == here["inputs"][name]["name"], (node_id, name)
        for index, output in here.get("outputs", {}).items():
            if "name" in output:
                assert node["outputs"][int(index)] == output["name"], (node_id, index)

    chinese_page.evaluate(SHOW, "ZipLoRAOptimize")
    training = panel(chinese_page, "ZipLoRA 学习合并 的训练")
    chinese_page.evaluate(DISPATCH, message(chinese_page, "ZipLoRAOptimize", 100, state="stopped"))
    expect(training).to_contain_text("第 100 / 400 步")
    expect(training).to_contain_text("已停止，并保留已学到的内容")
    expect(training.get_by_role("button", name="停止并保留")).to_be_disabled()
    expect(panel(chinese_page, "ZipLoRA 学习合并 的分布图")).to_be_visible()
    words: str = training.evaluate("(e) => e.innerText")
    assert not re.search("[a-z]{4}", words), words
    chinese_page.get_by_test_id("info-button").click()
    expect(chinese_page.get_by_role("heading", name="出问题时")).to_be_attached()
    shoot(chinese_page, "chinese")
