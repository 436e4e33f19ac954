"""The map of what was learned."""

from __future__ import annotations

import json

import pytest
import torch

from ziplora_core.lora.merged import MergedLoRA, layer_cosine
from ziplora_core.ziplora.merge_map import BINS, merge_map

from ..merging.merge_task import make_pair

NAMES = (
    "lora_unet_output_blocks_0_1_transformer_blocks_1_attn1_to_out_0",
    "lora_unet_input_blocks_10_1_transformer_blocks_0_attn2_to_k",
    "lora_unet_input_blocks_4_1_transformer_blocks_0_ff_net_0_proj",
    "lora_unet_middle_block_1_proj_in",
    "lora_unet_input_blocks_1_0_in_layers_2",
    "lora_unet_time_embed_0",
    "lora_unet_out_2",
)


def test_merge_map_names_every_layer_in_network_order_with_its_values() -> None:
    pairs = {name: make_pair(seed=n) for n, name in enumerate(NAMES)}
    coefficients = {
        name: torch.rand(2, 40, generator=torch.Generator().manual_seed(n)) - 0.2
        for n, name in enumerate(NAMES)
    }
    drawn = merge_map(MergedLoRA(pairs, coefficients))
    assert drawn is not None
    assert drawn["blocks"] == [
        "time_embed.0", "input_blocks.1.0", "input_blocks.4.1 · 0", "input_blocks.10.1 · 0",
        "middle_block.1", "output_blocks.0.1 · 1", "out.2",
    ]  # fmt: skip
    assert drawn["groups"] == ["time_embed.0", "in 1", "in 4", "in 10", "mid", "out 0", "out.2"]
    assert drawn["layers"][:2] == ["attn1.to_out", "attn2.to_k"]
    assert sorted(drawn["layers"][2:]) == ["ff.net.0.proj", "in_layers.2", "out", "proj_in",
                                           "time_embed"]  # fmt: skip
    for name, cell, counts in zip(NAMES, drawn["cells"], drawn["histograms"], strict=True):
        m = coefficients[name]
        wanted = [*m.abs().mean(1).tolist(), layer_cosine(pairs[name]),
                  layer_cosine(pairs[name], m)]  # fmt: skip
        assert cell[2:] == pytest.approx(wanted, abs=1e-4)
        assert [len(row) for row in counts] == [BINS, BINS]
        assert [sum(row) for row in counts] == [40, 40]
    assert drawn["blocks"][drawn["cells"][1][0]] == "input_blocks.10.1 · 0"
    json.dumps(drawn, allow_nan=False)


def test_merge_map_of_equal_coefficients_has_a_range() -> None:
    name = NAMES[0]
    drawn = merge_map(MergedLoRA({name: make_pair()}, {name: torch.ones(2, 40)}))
    assert drawn is not None and drawn["range"] == [0.5, 1.5]
    assert [sum(row) for row in drawn["histograms"][0]] == [40, 40]


def test_merge_map_of_nothing_or_of_a_text_encoders_modules_is_none() -> None:
    assert merge_map(MergedLoRA({NAMES[0]: make_pair()})) is None
    other = "lora_te1_text_model_encoder_layers_0_mlp_fc1"
    assert merge_map(MergedLoRA({other: make_pair()}, {other: torch.ones(2, 40)})) is None
