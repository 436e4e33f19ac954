"""DreamBooth's draws and terms, on a toy model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from ziplora_core.dreambooth.objective import (
    Draw,
    DreamBoothObjective,
    TrainingExample,
    View,
    most_common_frame,
)
from ziplora_core.dreambooth.options import DreamBoothSettings
from ziplora_core.training.branches import Branches, Gates
from ziplora_core.training.framing import Framing
from ziplora_core.training.lora_parameters import LearnedLoRA, LoRAParameters
from ziplora_core.training.options import TrainingOptions

from ..lora.factors import ToyModel

WIDTH = 4
SQUARE, WIDE = Framing.drawn(16, 16), Framing.drawn(16, 24)


class NoisingToy(ToyModel):
    """The toy on every latent pixel, with a noise schedule: σ = 0.01 · (timestep + 1), eps."""

    dtype = torch.float32
    v_prediction = flow = False

    def __init__(self, branches: dict[str, Branches]) -> None:
        super().__init__(branches, WIDTH)
        self.seen: list[tuple[Tensor, Tensor, int]] = []

    def denoise(
        self, x: Tensor, sigma: Tensor, conditioning: Sequence[Tensor], gates: Gates | None
    ) -> Tensor:
        pixels = x.movedim(1, -1)  # (b, h, w, c)
        each = pixels[0, ..., 0].numel()
        many = [c for c in conditioning for _ in range(each)]
        flat = pixels.reshape(-1, WIDTH, 1, 1)
        out = super().denoise(flat, sigma.repeat_interleave(each), many, gates)
        return out.view(pixels.shape).movedim(-1, 1)

    def draw_timestep(self, rng: torch.Generator) -> int:
        return int(torch.randint(100, (), generator=rng))

    def noised(self, x0: Tensor, noise: Tensor, timestep: int) -> tuple[Tensor, Tensor, Tensor]:
        self.seen.append((x0, noise, timestep))
        sigma = torch.tensor(0.01 * (timestep + 1))
        return x0 + sigma * noise, sigma, noise


def example(
    value: float, caption: str, frame: Framing = SQUARE, std: float = 0.0
) -> TrainingExample:
    height, width = (side // 8 for side in frame.target)
    mean = torch.full((WIDTH, height, width), value)
    return TrainingExample((View(mean, torch.full_like(mean, std), frame),), caption)


@dataclass
class Toy:
    """An objective, its model, and what the conditioner was asked for."""

    task: DreamBoothObjective
    model: NoisingToy
    asked: list[tuple[str, Framing]]

    def draw(self, number: int) -> Draw:
        return self.task._draws(number)[0]


def toy(
    instances: Sequence[TrainingExample],
    classes: Sequence[TrainingExample] = (),
    options: TrainingOptions | None = None,
    **settings: Any,
) -> Toy:
    shapes = {"a": (WIDTH, WIDTH), "b": (WIDTH, WIDTH)}
    lora = LearnedLoRA(LoRAParameters(shapes, 2, 2.0, torch.Generator().manual_seed(0)))
    chosen = DreamBoothSettings("sks", options=options or TrainingOptions(), **settings)
    asked: list[tuple[str, Framing]] = []

    def conditioner(requests: Sequence[tuple[str, Framing]]) -> list[Any]:
        asked.extend(requests)
        return [torch.zeros(1) for _ in requests]

    model = NoisingToy(lora.branches)
    task = DreamBoothObjective(model, lora, None, instances, classes, conditioner, chosen)
    return Toy(task, model, asked)


def test_draws_show_every_picture_equally_often() -> None:
    opened = toy([example(n, str(n)) for n in range(5)])
    shown = Counter(opened.draw(n).caption for n in range(50))
    assert set(shown.values()) == {10}


def test_draws_cover_all_timesteps_and_both_views() -> None:
    plain = example(1.0, "dog")
    mirrored = View(plain.views[0].mean + 1, plain.views[0].std, WIDE)
    opened = toy([TrainingExample((plain.views[0], mirrored), "dog")])
    draws = [opened.draw(n) for n in range(400)]
    timesteps = [round(float(draw.sigma) * 100) - 1 for draw in draws]
    assert min(timesteps) < 5 and max(timesteps) > 94
    assert 150 < sum(draw.frame == WIDE for draw in draws) < 250


def test_draws_take_latents_from_their_distribution() -> None:
    opened = toy([example(2.0, "dog", std=0.5)])
    for n in range(200):
        opened.draw(n)
    latents = torch.stack([x0 for x0, *_ in opened.model.seen])
    assert float(latents.mean()) == pytest.approx(2.0, abs=0.02)
    assert float(latents.std()) == pytest.approx(0.5, abs=0.02)


def test_caption_dropout_shows_the_empty_prompt_that_often() -> None:
    opened = toy([example(1.0, "dog")], options=TrainingOptions(caption_dropout=0.2))
    dropped = sum(opened.draw(n).caption == "" for n in range(1000))
    assert 150 < dropped < 250


def test_class_pictures_have_noise_of_their_own() -> None:
    opened = toy([example(1.0, "sks")], [example(1.0, "dog")])
    instance, prior = opened.task._draws(0)
    assert (instance.term, prior.term) == ("instance", "prior")
    assert not torch.equal(instance.target, prior.target)


def test_loss_is_the_instance_error_and_the_weighted_prior() -> None:
    opened = toy([example(1.0, "sks")], [example(3.0, "dog")], prior_weight=0.25)
    terms = {name: float(value) for name, value in opened.task.backward(0).items()}
    assert terms["loss"] == pytest.approx(terms["instance"] + 0.25 * terms["prior"])
    assert (
        opened.task.lora.parameters.flat.grad is not None
        and opened.task.lora.parameters.flat.grad.any()
    )


def test_min_snr_weighs_instance_and_class_pictures_alike() -> None:
    shown = [example(1.0, "sks")], [example(3.0, "dog")]
    plain = toy(*shown).task.backward(0)
    opened = toy(*shown, options=TrainingOptions(min_snr_gamma=5.0))
    weighted = opened.task.backward(0)
    for draw in opened.task._draws(0):
        snr = float(draw.sigma) ** -2
        ratio = float(weighted[draw.term] / plain[draw.term])
        assert ratio == pytest.approx(min(snr, 5.0) / snr, rel=1e-4)


def test_pictures_of_two_sizes_go_through_in_two_batches() -> None:
    opened = toy([example(1.0, "a"), example(2.0, "b", WIDE)], options=TrainingOptions(batch=4))
    opened.task.backward(0)
    assert Counter(frame for _, frame in opened.asked) == {SQUARE: 2, WIDE: 2}


def test_held_out_draws_are_no_training_draws_and_leave_the_factors() -> None:
    opened = toy([example(1.0, "a")], options=TrainingOptions(held_out_draws=5))
    (leaf,) = opened.task.parameters
    before = leaf.detach().clone()
    first, second = opened.task.held_out(), opened.task.held_out()
    assert first == second and first is not None
    assert (
        torch.equal(opened.task.lora.parameters.flat, before)
        and opened.task.lora.parameters.flat.grad is None
    )
    noise = [n for _, n, _ in opened.model.seen]
    opened.task.backward(0)
    assert not any(torch.equal(opened.model.seen[-1][1], n) for n in noise)
    without = toy([example(1.0, "a")], options=TrainingOptions(held_out_draws=0))
    assert without.task.held_out() is None


def test_most_common_frame_wins() -> None:
    shown = [example(0, "a", WIDE), example(0, "b"), example(0, "c")]
    assert most_common_frame(shown) == SQUARE
