"""A ZipLoRA objective on the toy model, for the tests of the objective and of the loop."""

from __future__ import annotations

from typing import Any

from ziplora_core.lora.coefficients import MergerCoefficients
from ziplora_core.lora.pair import ModulePair
from ziplora_core.training.branches import Branches
from ziplora_core.training.noisy_samples import TEACHERS, with_targets
from ziplora_core.training.options import TrainingOptions
from ziplora_core.ziplora.objective import ZipLoRAObjective
from ziplora_core.ziplora.options import ZipLoRASettings

from ..lora.factors import ToyModel, random_factors
from ..training.test_noisy_samples import WIDTH, some_states

NAMES = ("lora_unet_input_blocks_4_1_a", "lora_unet_input_blocks_4_1_b")
STEPS = 12


def objective(
    options: TrainingOptions | None = None, joint: bool = False, **settings: Any
) -> ZipLoRAObjective:
    pairs = {
        name: ModulePair(
            random_factors(2, WIDTH, WIDTH, seed=10 + i), random_factors(3, WIDTH, WIDTH, seed=i)
        )
        for i, name in enumerate(NAMES)
    }
    branches = {name: Branches(pair.factors) for name, pair in pairs.items()}
    model = ToyModel(branches, WIDTH)
    settings = {"learning_rate": 0.05, **settings}
    chosen = ZipLoRASettings(
        solver="adam", steps=STEPS, options=options or TrainingOptions(), **settings
    )
    states = [
        with_targets(model.denoise, some_states(5, seed), teacher, 5)
        for teacher, seed in zip(TEACHERS[: 3 if joint else 2], (1, 2, 3), strict=False)
    ]
    return ZipLoRAObjective(
        model, branches, MergerCoefficients({n: WIDTH for n in NAMES}), pairs,
        states, chosen,
    )  # fmt: skip
