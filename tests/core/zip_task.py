"""A ZipLoRA objective on the toy model, for the tests of the objective and of the loop."""

from __future__ import annotations

from typing import Any

from ziplora_core.branches import Branches
from ziplora_core.coefficients import MergerCoefficients
from ziplora_core.options import TrainingOptions, ZipSettings
from ziplora_core.pairing import ModulePair
from ziplora_core.states import TEACHERS, with_targets
from ziplora_core.zip_objective import ZipObjective

from .factors import ToyModel, random_factors
from .test_states import WIDTH, some_states

NAMES = ("lora_unet_input_blocks_4_1_a", "lora_unet_input_blocks_4_1_b")
STEPS = 12


def objective(
    options: TrainingOptions | None = None, joint: bool = False, **settings: Any
) -> ZipObjective:
    pairs = {
        name: ModulePair(
            random_factors(2, WIDTH, WIDTH, seed=10 + i), random_factors(3, WIDTH, WIDTH, seed=i)
        )
        for i, name in enumerate(NAMES)
    }
    branches = {name: Branches(pair.factors) for name, pair in pairs.items()}
    model = ToyModel(branches, WIDTH)
    settings = {"learning_rate": 0.05, **settings}
    chosen = ZipSettings(
        solver="adam", steps=STEPS, options=options or TrainingOptions(), **settings
    )
    states = [
        with_targets(model.denoise, some_states(5, seed), teacher, 5)
        for teacher, seed in zip(TEACHERS[: 3 if joint else 2], (1, 2, 3), strict=False)
    ]
    return ZipObjective(
        model, branches, MergerCoefficients({n: WIDTH for n in NAMES}), pairs,
        states, chosen,
    )  # fmt: skip
