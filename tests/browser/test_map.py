"""The map of a merge as large as SDXL's, in both renderers."""

from __future__ import annotations

from typing import Any

import torch
from playwright.sync_api import Page, expect

from ziplora_core.lora.factors import LoraFactors
from ziplora_core.lora.merged import MergedLoRA
from ziplora_core.lora.pair import ModulePair
from ziplora_core.ziplora.merge_map import merge_map

from .pages import MERGE, contains, drop, look_at, panel, shoot

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
    """Make ZipLoRA Optimize's output for all of SDXL's attention layers, in narrow widths."""
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
