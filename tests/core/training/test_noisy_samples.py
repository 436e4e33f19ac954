"""States: draws without hidden state, teachers by gates, retention."""

from __future__ import annotations

import torch

from ziplora_core.training.branches import Branches, Gates
from ziplora_core.training.noisy_samples import (
    NoisySample,
    predict,
    retention,
    stackable,
    with_targets,
)
from ziplora_core.training.random import draw_index, draw_timesteps, generator

from ..lora.factors import ToyModel, random_factors

WIDTH = 4


def toy() -> ToyModel:
    pair = [random_factors(2, WIDTH, WIDTH, seed=s) for s in (1, 2)]
    return ToyModel({"a": Branches(pair), "b": Branches(pair[::-1])}, WIDTH)


def some_states(count: int, seed: int = 0) -> list[NoisySample]:
    rng = generator(seed)
    return [
        NoisySample(
            torch.randn(WIDTH, 1, 1, generator=rng),
            torch.rand((), generator=rng) * 10,
            torch.randn(WIDTH, generator=rng),
        )
        for _ in range(count)
    ]


def test_generator_equal_numbers_equal_draws() -> None:
    assert torch.equal(
        torch.rand(3, generator=generator(1, 2)), torch.rand(3, generator=generator(1, 2))
    )
    draws = {
        float(torch.rand((), generator=generator(*n))) for n in [(1, 2), (2, 1), (1,), (1, 2, 0)]
    }
    assert len(draws) == 4


def test_draw_timesteps_is_stratified_over_the_range() -> None:
    timesteps = draw_timesteps(32, 1000, generator(3))
    assert sorted(t * 32 // 1000 for t in timesteps.tolist()) == list(range(32))
    assert timesteps.tolist() != sorted(timesteps.tolist())


def test_draw_timesteps_mean_is_uniform() -> None:
    drawn = torch.stack([draw_timesteps(8, 1000, generator(s)) for s in range(500)]).float()
    assert abs(float(drawn.mean()) - 499.5) < 5
    assert drawn.min() >= 0 and drawn.max() <= 999


def test_draw_index_every_epoch_visits_each_state_once() -> None:
    order = [draw_index(5, 4, draw) for draw in range(400)]
    epochs = [order[i : i + 4] for i in range(0, 400, 4)]
    assert all(sorted(epoch) == [0, 1, 2, 3] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 24
    assert order == [draw_index(5, 4, draw) for draw in range(400)]


def test_with_targets_in_one_batch_equals_each_lora_alone() -> None:
    model, states = toy(), some_states(3)
    done = with_targets(model.denoise, states, (0.0, 1.0), batch=2)
    alone = {
        name: Branches([pair])
        for name, pair in (
            ("a", random_factors(2, WIDTH, WIDTH, seed=2)),
            ("b", random_factors(2, WIDTH, WIDTH, seed=1)),
        )
    }
    single = predict(ToyModel(alone, WIDTH).denoise, states, Gates())
    torch.testing.assert_close(torch.stack([s.target for s in done]), single)
    assert model.calls == [2, 1]


def test_retention_is_the_mean_error_and_zero_for_the_teacher_itself() -> None:
    model, states = toy(), some_states(5)
    own = predict(model.denoise, states, Gates())
    same = [NoisySample(s.x, s.sigma, s.conditioning, t) for s, t in zip(states, own, strict=True)]
    assert retention(model.denoise, same, batch=5) == 0.0
    off = [
        NoisySample(s.x, s.sigma, s.conditioning, t + i)
        for i, (s, t) in enumerate(zip(states, own, strict=True))
    ]
    assert abs(retention(model.denoise, off, batch=2) - (0 + 1 + 4 + 9 + 16) / 5) < 1e-4


def test_stackable_needs_one_size() -> None:
    small, large = (
        NoisySample(torch.zeros(1, 2, 2), torch.ones(()), None),
        NoisySample(torch.zeros(1, 2, 3), torch.ones(()), None),
    )
    assert stackable([small], [small]) and not stackable([small], [large])
