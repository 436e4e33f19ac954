"""ZipLoRA's objective: its gradient, its passes, its early stop."""

from __future__ import annotations

import torch

from ziplora_core.training.options import TrainingOptions
from ziplora_core.ziplora.objective import plateau

from .ziplora_task import objective


def test_backward_total_equals_its_terms_and_autograd_of_the_formula() -> None:
    task = objective(similarity="dot_mean", similarity_weight=0.1)
    terms = task.backward(0)
    total = terms["content"] + terms["style"] + 0.1 * terms["penalty"]
    torch.testing.assert_close(terms["loss"], total)
    gradient = task.coefficients.flat.grad
    assert gradient is not None

    h = 1e-2  # central difference in float32
    got = []
    for i in (0, 5, 9):
        values = []
        for sign in (1, -1):
            fresh = objective(similarity="dot_mean", similarity_weight=0.1)
            with torch.no_grad():
                fresh.coefficients.flat[i] += sign * h
            values.append(float(fresh.backward(0)["loss"]))
        got.append((values[0] - values[1]) / (2 * h))
    torch.testing.assert_close(torch.tensor(got), gradient[[0, 5, 9]], rtol=2e-2, atol=1e-4)


def test_backward_low_memory_gives_the_same_gradient_in_two_passes() -> None:
    fast, low = objective(), objective()
    assert low.save_memory() and not low.save_memory()
    a, b = fast.backward(3), low.backward(3)
    torch.testing.assert_close(a["loss"], b["loss"])
    torch.testing.assert_close(fast.coefficients.flat.grad, low.coefficients.flat.grad)
    assert fast.model.calls[-1:] == [2] and low.model.calls[-2:] == [1, 1]


def test_joint_states_are_a_third_error_with_its_weight() -> None:
    pair, three = objective(), objective(joint=True, joint_weight=3.0)
    a, b = pair.backward(2), three.backward(2)
    assert list(b) == ["loss", "content", "style", "joint", "penalty"]
    assert float(b["joint"]) < 1e-12, "all ones are the direct merge, which is the joint teacher"
    torch.testing.assert_close(a["loss"], b["loss"])
    with torch.no_grad():
        three.coefficients.flat.mul_(0.5)
    moved = three.backward(2)
    assert float(moved["joint"]) > 0
    total = moved["content"] + moved["style"] + moved["joint"] + 0.001 * moved["penalty"]
    torch.testing.assert_close(moved["loss"], total)
    once = objective(joint=True, joint_weight=1.0)
    with torch.no_grad():
        once.coefficients.flat.mul_(0.5)
    torch.testing.assert_close(moved["joint"], 3 * once.backward(2)["joint"])


def test_backward_accumulation_equals_a_batch_of_the_same_draws() -> None:
    batch = objective(TrainingOptions(batch=4))
    parts = objective(TrainingOptions(accumulation=4))
    a, b = batch.backward(1), parts.backward(1)
    torch.testing.assert_close(a["content"], b["content"])
    torch.testing.assert_close(batch.coefficients.flat.grad, parts.coefficients.flat.grad)


def test_plateau_needs_three_whole_epochs_without_a_better_one() -> None:
    falling = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]
    assert plateau(falling, epoch=2) is None
    still = [1.0, 0.5] * 4
    assert plateau(still, epoch=2) is not None
    assert plateau(still[:7], epoch=2) is None
