"""A pair to merge, and its merges as dense matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ziplora_core.lora.blocks import PRESETS
from ziplora_core.lora.factors import LoraFactors
from ziplora_core.lora.merged import MergedLoRA
from ziplora_core.lora.pair import ModulePair
from ziplora_core.merging import CALIBRATED, METHODS, MergeSettings

from ..lora.factors import random_factors
from .rank_task import seen_by_default

Matrix = npt.NDArray[np.float64]
KERNELS = [0, 3]
NAME = "lora_unet_output_blocks_0_1_transformer_blocks_0_attn1_to_q"
OTHER = "lora_unet_output_blocks_1_1_transformer_blocks_0_attn1_to_q"
TEXT = "lora_te1_text_model_encoder_layers_0_mlp_fc1"
BLOCKS = PRESETS["b_lora_protected"]


def make_pair(kernel: int = 0, ranks: tuple[int, int] = (4, 3), seed: int = 1) -> ModulePair:
    return ModulePair(
        random_factors(ranks[0], 40, 30, kernel, alpha=2.0, seed=seed),
        random_factors(ranks[1], 40, 30, kernel, alpha=-6.0, seed=seed + 1),
    )


def merged_by(method: str, pair: ModulePair, **settings: Any) -> MergedLoRA:
    sources = MergedLoRA({NAME: pair}, text_encoder={TEXT: make_pair(ranks=(3, 3), seed=5)})
    moments = {NAME: seen_by_default(pair)} if method in CALIBRATED else {}
    return METHODS[method](sources, MergeSettings(blocks=BLOCKS, moments=moments, **settings))[0]


def dense(factors: LoraFactors | None) -> Matrix:
    assert factors is not None
    return factors.delta().flatten(1).double().numpy()


def delta(method: str, pair: ModulePair, **settings: Any) -> Matrix:
    return dense(merged_by(method, pair, **settings).modules()[NAME])


def assert_close(got: Matrix, want: Matrix, limit: float = 1e-5) -> None:
    assert np.linalg.norm(got - want) <= limit * np.linalg.norm(want)
