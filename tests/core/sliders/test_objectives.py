"""A slider's prompts, draws and terms, on a toy model."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ziplora_core.sliders.options import TextSliderSettings
from ziplora_core.sliders.text_objective import (
    DENOISING_STEPS,
    GUIDANCE,
    SHARED,
    Concept,
    TextSliderObjective,
    concepts,
    denoising_sigmas,
    partly_denoised,
)
from ziplora_core.training.branches import Gates
from ziplora_core.training.checkpoint import CheckpointFolder
from ziplora_core.training.interface import LoopCallbacks, TrainingRecord
from ziplora_core.training.loop import train
from ziplora_core.training.lora_parameters import LearnedLoRA, LoRAParameters
from ziplora_core.training.options import TrainingOptions

from ..lora.factors import ToyModel, exported

WIDTH = 4


class DrawingToy(ToyModel):
    """The toy with a noise schedule; its prediction is eps."""

    dtype = torch.float32
    v_prediction = flow = False
    sigmas = torch.linspace(0.03, 14.6, 1000)

    def place(self, tensor: Tensor) -> Tensor:
        return tensor

    def pure_noise(self, noise: Tensor, sigma: float) -> Tensor:
        return noise * (1 + sigma**2) ** 0.5

    def denoised(
        self, x: Tensor, sigma: Tensor, conditioning: Sequence[Tensor], gates: Gates | None
    ) -> Tensor:
        return x - sigma[:, None, None, None] * self.denoise(x, sigma, conditioning, gates)


def prompt(value: float) -> Tensor:
    return torch.full((WIDTH,), value)


SHOWN = [
    Concept(prompt(0.1 * n), prompt(1.0 + n), prompt(-1.0), prompt(0.2 * n)) for n in range(1, 3)
]


def task(options: TrainingOptions | None = None, **settings: Any) -> TextSliderObjective:
    shapes = {"a": (WIDTH, WIDTH), "b": (WIDTH, WIDTH)}
    lora = LearnedLoRA(LoRAParameters(shapes, 2, 2.0, torch.Generator().manual_seed(0)))
    with torch.no_grad():
        lora.parameters.flat += 0.1
    model = DrawingToy(lora.branches, WIDTH)
    chosen = TextSliderSettings(options=options or TrainingOptions(), **settings)
    return TextSliderObjective(model, lora, SHOWN, (WIDTH, 1, 1), chosen)


def test_concepts_put_each_preserved_one_before_all_prompts() -> None:
    asked = TextSliderSettings(target="person", positive="old person", negative="young person")
    assert concepts(asked) == [Concept("person", "old person", "young person", "person")]
    asked = TextSliderSettings(target="person", positive="old", preserve="male\n\n female ")
    found = concepts(asked)
    assert found == [
        Concept("male person", "male old", "male", "male person"),
        Concept("female person", "female old", "female", "female person"),
    ]


def test_noise_levels_are_those_of_fifty_ddim_steps() -> None:
    sigmas = denoising_sigmas(DrawingToy.sigmas)
    assert len(sigmas) == DENOISING_STEPS
    assert sigmas[0] == DrawingToy.sigmas[980] and sigmas[-1] == DrawingToy.sigmas[0]


@pytest.mark.parametrize("action", ["enhance", "erase"])
def test_target_is_the_guided_score_without_the_slider(action: str) -> None:
    made = task(guidance=3.0, action=action)
    made.fold()
    x, sigma = torch.randn(2, WIDTH, 1, 1), torch.tensor([1.0, 2.0])
    got = made.target(x, sigma, SHOWN)
    assert made.model.calls == [6]
    neutral, positive, negative = (
        made.model.denoise(x, sigma, [getattr(c, name) for c in SHOWN], None)
        for name in ("neutral", "positive", "negative")
    )
    sign = 1 if action == "enhance" else -1
    torch.testing.assert_close(got, neutral + sign * 3.0 * (positive - negative))


def test_way_there_is_euler_with_guidance_and_the_slider_on() -> None:
    made = task()
    made.fold()
    noise = torch.randn(2, WIDTH, 1, 1)
    one, two = partly_denoised(made.model, SHOWN, [[3], [1, 2]], noise)
    assert one.shape == (1, WIDTH, 1, 1) and two.shape == (2, WIDTH, 1, 1)
    assert made.model.calls == [4, 4, 2]  # the second sample leaves after two steps
    sigmas = denoising_sigmas(DrawingToy.sigmas)
    x = noise[:1] * (1 + sigmas[0] ** 2).sqrt()
    for now, after in pairwise(sigmas[:4]):
        eps_n, eps_t = (
            made.model.denoise(x, now[None], [p], Gates()) for p in (prompt(-1.0), SHOWN[0].target)
        )
        x = x + (eps_n + GUIDANCE * (eps_t - eps_n)) * (after - now)
    torch.testing.assert_close(one, x, rtol=1e-4, atol=1e-4)


def test_exact_steps_cover_all_noise_levels_and_all_concepts() -> None:
    made = task()
    starts = [made.start(n, 1) for n in range(600)]
    assert {steps[0] for _, steps, _ in starts} == set(range(1, DENOISING_STEPS))
    assert [sum(c is shown for c, _, _ in starts) for shown in SHOWN] == [300, 300]


def test_reused_steps_take_one_from_each_part() -> None:
    made = task(trajectory="reused")
    steps = [made.start(n, SHARED)[1] for n in range(300)]
    assert {k for own in steps for k in own} == set(range(1, DENOISING_STEPS))
    part = (DENOISING_STEPS - 1) / SHARED
    for own in steps:
        assert all(n * part <= k <= (n + 1) * part + 1 for n, k in enumerate(sorted(own)))
    firsts = [own[0] for own in steps]
    assert min(firsts) < 8 and max(firsts) > 42


def test_reused_trajectory_costs_less_than_a_third() -> None:
    spent = {}
    for trajectory in ("exact", "reused"):
        made = task(trajectory=trajectory)
        for step in range(16 * SHARED):
            made.backward(step)
        backward = 16 * SHARED
        spent[trajectory] = (sum(made.model.calls) + backward) / (16 * SHARED)
    assert spent["exact"] == pytest.approx(55, rel=0.1)
    assert spent["exact"] >= 3 * spent["reused"]


@pytest.mark.parametrize("trajectory", ["exact", "reused"])
def test_low_memory_takes_samples_and_predictions_in_turn_for_the_same(trajectory: str) -> None:
    options, found = TrainingOptions(batch=3, accumulation=2), {}
    for low in (False, True):
        made = task(options, trajectory=trajectory)
        made.model.checkpointing = low
        made.fold()
        made.draw(0)
        made.model.calls.clear()
        terms = made.backward(0)
        assert made.lora.parameters.flat.grad is not None
        found[low] = terms["loss"], made.lora.parameters.flat.grad, made.model.calls[-4:]
    torch.testing.assert_close(found[True][0], found[False][0])
    torch.testing.assert_close(found[True][1], found[False][1], rtol=1e-4, atol=1e-6)
    assert found[True][2] == [1, 1, 1, 1] and found[False][2][-2:] == [9, 3]


@pytest.mark.parametrize("trajectory", ["exact", "reused"])
@pytest.mark.parametrize("at", [3, SHARED, 11])
def test_cancelled_at_any_step_resumes_bit_identical(
    trajectory: str, at: int, tmp_path: Path
) -> None:
    options = TrainingOptions(batch=2)
    whole = task(options, trajectory=trajectory)
    history = run(whole, None).history

    def cancel(record: TrainingRecord) -> None:
        if record.step == at:
            raise KeyboardInterrupt

    folder = CheckpointFolder(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        run(task(options, trajectory=trajectory), folder, on_step=cancel)
    resumed = task(options, trajectory=trajectory)
    record = run(resumed, folder)
    assert record.resumed_at == at and record.history == history
    assert torch.equal(resumed.lora.parameters.flat, whole.lora.parameters.flat)


def run(
    made: TextSliderObjective, folder: CheckpointFolder | None, **callbacks: Any
) -> TrainingRecord:
    return train(
        made, 2 * SHARED, made.options, LoopCallbacks(export=exported(made), **callbacks), folder
    )


def test_training_brings_the_target_nearer() -> None:
    made = task(learning_rate=0.02, guidance=1.0)
    record = train(made, 120, made.options, LoopCallbacks(export=exported(made)))
    loss = record.history["loss"]
    assert sum(loss[-20:]) < 0.7 * sum(loss[:20])
