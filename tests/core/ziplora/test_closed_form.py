"""The closed form against least squares on the dense problem, by NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ziplora_core.errors import ZipLoRAError
from ziplora_core.lora.factors import LoraFactors
from ziplora_core.lora.pair import ModulePair
from ziplora_core.training.branches import Branches, Gates
from ziplora_core.training.noisy_samples import (
    TEACHERS,
    NoisySample,
    Teacher,
    retention,
    with_targets,
)
from ziplora_core.training.run_history import Run
from ziplora_core.ziplora.closed_form import ClosedFormSettings, Collector, solve_coefficients

from ..lora.factors import ToyModel, random_factors

WIDTH = 8
RIDGE = 1e-3
Shown = list[tuple[Teacher, list[NoisySample]]]


def make_pair(kernel: int = 0, seed: int = 1) -> ModulePair:
    return ModulePair(
        random_factors(2, WIDTH, 5, kernel, alpha=1.0, seed=seed),
        random_factors(3, WIDTH, 5, kernel, alpha=-3.0, seed=seed + 1),
    )


def make_layer(kernel: int) -> nn.Module:
    torch.manual_seed(0)
    layer = nn.Conv2d(WIDTH, 5, kernel, 2, 1) if kernel else nn.Linear(WIDTH, 5)
    return layer.requires_grad_(False)


def run(layer: nn.Module, weight: Tensor, x: Tensor) -> Tensor:
    if isinstance(layer, nn.Conv2d):
        return F.conv2d(x, weight, None, layer.stride, layer.padding)
    return F.linear(x, weight)


def dense_problem(
    layer: nn.Module, pair: ModulePair, x: Tensor, y: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """One column per coefficient: what the layer adds when that one is 1 and the others are 0."""
    columns = []
    for factors in pair.factors:
        assert factors is not None
        delta = factors.delta()
        for j in range(WIDTH):
            only = torch.zeros_like(delta)
            only[:, j] = delta[:, j]
            columns.append(run(layer, only, x).flatten())
    return torch.stack(columns, 1).double().numpy(), y.double().flatten().numpy()


def ridged(problems: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Least squares with rows that hold every coefficient at 1."""
    design = np.concatenate([a for a, _ in problems])
    target = np.concatenate([b for _, b in problems])
    each = (design**2).sum(0).reshape(2, -1).mean(1)  # content's and style's own
    weight = (RIDGE * np.repeat(each, WIDTH)) ** 0.5
    design = np.concatenate([design, np.diag(weight)])
    target = np.concatenate([target, weight])
    return np.linalg.lstsq(design, target, rcond=None)[0]


@pytest.mark.parametrize("teachers", [2, 3])
@pytest.mark.parametrize("kernel", [0, 1, 3])
def test_first_pass_minimises_all_output_errors(kernel: int, teachers: int) -> None:
    layer, pair = make_layer(kernel), make_pair(kernel)
    shape = (3, WIDTH, 6, 6) if kernel else (3, 7, WIDTH)
    collector, problems = Collector(beside({"a": pair})), []
    deltas = [factors.delta() for factors in pair.factors if factors]
    deltas.append(deltas[0] + deltas[1])  # the joint teacher
    for number, (teacher, delta) in enumerate(zip(TEACHERS[:teachers], deltas, strict=False)):
        x = torch.randn(shape) + number
        collector.teacher = teacher
        collector.record("a", x, layer(x), layer)
        problems.append(dense_problem(layer, pair, x, run(layer, delta, x)))
    got = collector.moments["a"].solve(RIDGE)
    assert got is not None
    np.testing.assert_allclose(got.columns.flatten(), ridged(problems), atol=1e-4)


@pytest.mark.parametrize("kernel", [0, 3])
def test_later_pass_also_makes_good_the_drift_of_the_base_layer(kernel: int) -> None:
    layer, pair = make_layer(kernel), make_pair(kernel)
    shape = (2, WIDTH, 6, 6) if kernel else (2, 7, WIDTH)
    teacher, student = torch.randn(shape), torch.randn(shape)
    collector = Collector(beside({"a": pair}), with_student=True)
    collector.teacher = (0.0, 1.0)
    x = torch.cat([teacher, student])
    collector.record("a", x, layer(x), layer)
    assert pair.style is not None
    target = run(layer, pair.style.delta(), teacher) + layer(teacher) - layer(student)
    got = collector.moments["a"].solve(RIDGE)
    assert got is not None
    want = ridged([dense_problem(layer, pair, student, target)])
    np.testing.assert_allclose(got.columns.flatten(), want, atol=1e-3)


def test_error_is_what_is_left_of_the_outputs() -> None:
    layer, pair = make_layer(0), make_pair()
    collector, left, direct, energy = Collector(beside({"a": pair})), 0.0, 0.0, 0.0
    shown = [(teacher, torch.randn(2, 7, WIDTH)) for teacher in TEACHERS[:2]]
    for collector.teacher, x in shown:
        collector.record("a", x, layer(x), layer)
    got = collector.moments["a"].solve(RIDGE)
    assert got is not None and pair.content and pair.style
    content, style = pair.content.delta(), pair.style.delta()
    for teacher, x in shown:
        y = x @ (teacher[0] * content + teacher[1] * style).T
        merged = x @ (got.columns[0] * content + got.columns[1] * style).T
        left += float((merged - y).square().sum())
        direct += float((x @ (content + style).T - y).square().sum())
        energy += float(y.square().sum())
    assert abs(got.error - left / energy) < 1e-4 and abs(got.direct - direct / energy) < 1e-4


def test_large_picture_counts_as_a_small_one_does() -> None:
    layer, pair = make_layer(0), make_pair()
    small, large = (Collector(beside({"a": pair})) for _ in range(2))
    for teacher in TEACHERS[:2]:
        x = torch.randn(2, 7, WIDTH)
        for collector, times in ((small, 1), (large, 4 if teacher == TEACHERS[0] else 1)):
            collector.teacher = teacher
            seen = x.repeat(1, times, 1)
            collector.record("a", seen, layer(seen), layer)
    a, b = (collector.moments["a"].solve(RIDGE) for collector in (small, large))
    assert a and b
    torch.testing.assert_close(a.columns, b.columns, rtol=1e-3, atol=1e-3)


def test_sums_go_to_the_cpu_where_there_is_no_room() -> None:
    pairs = {"a": make_pair(), "b": make_pair(seed=5)}
    collector, layer = Collector(beside(pairs), budget=4 * WIDTH**2 + 1), make_layer(0)
    for name in pairs:
        x = torch.randn(2, 7, WIDTH)
        collector.record(name, x, layer(x), layer)
    assert 0 < collector.budget < 4 * WIDTH**2
    assert all(moments.second is not None for moments in collector.moments.values())


def test_layers_that_read_one_input_share_its_moments() -> None:
    pairs = {name: make_pair(seed=seed) for name, seed in (("q", 1), ("k", 5), ("o", 9))}
    layer, collector = make_layer(0), Collector(beside(pairs))
    for _ in range(2):
        x, other = torch.randn(2, 4, WIDTH), torch.randn(2, 4, WIDTH)
        for name, tensor in (("q", x), ("k", x), ("o", other)):
            collector.record(name, tensor, layer(tensor), layer)
    q, k, o = (collector.moments[name].second for name in pairs)
    assert q is k and q is not o


def beside(pairs: dict[str, ModulePair]) -> dict[str, Branches]:
    return {name: Branches(pair.factors) for name, pair in pairs.items()}


def toy() -> tuple[ToyModel, dict[str, ModulePair], Shown]:
    """A model with two layers, and states of each concept with their targets."""
    pairs = {
        name: ModulePair(
            random_factors(2, WIDTH, WIDTH, alpha=0.3, seed=seed),
            random_factors(2, WIDTH, WIDTH, alpha=0.3, seed=seed + 1),
        )
        for name, seed in (("a", 1), ("b", 3))
    }
    model = ToyModel(beside(pairs), WIDTH)
    states = []
    for number, teacher in enumerate(TEACHERS[:2]):
        rng = torch.Generator().manual_seed(number)
        drawn = [
            NoisySample(
                torch.randn(WIDTH, 1, 1, generator=rng),
                torch.rand((), generator=rng),
                2 * number * torch.ones(WIDTH),
            )
            for _ in range(40)
        ]
        states.append((teacher, with_targets(model.denoise, drawn, teacher, 8)))
    return model, pairs, states


def kept(model: ToyModel, states: Shown, columns: dict[str, Tensor] | None) -> float:
    for name, branches in model.branches.items():
        branches.fold(columns[name] if columns else torch.ones(2, WIDTH))
    return sum(retention(model.denoise, part, 8) for _, part in states)


def test_every_pass_keeps_more_of_both() -> None:
    model, _pairs, states = toy()
    errors = [kept(model, states, None)]
    for passes in (1, 2):
        settings = ClosedFormSettings(passes, RIDGE, 8)
        done = solve_coefficients(model, ["a", "b"], states, settings)
        assert done.notes == [] and done.passes == passes
        assert done.error < 1
        errors.append(kept(model, states, done.columns))
    assert errors[1] < 0.7 * errors[0] and errors[2] < errors[1]


def test_a_teachers_weight_counts_its_samples_as_often() -> None:
    model, _pairs, ((content, of_content), (style, of_style)) = toy()

    def solved(of_style: list[NoisySample], *weights: float) -> Tensor:
        settings = ClosedFormSettings(1, RIDGE, 8, weights=weights)
        shown = [(content, of_content), (style, of_style)]
        return solve_coefficients(model, ["a", "b"], shown, settings).columns["b"]

    weighted, equal = solved(of_style, 1.0, 4.0), solved(of_style, 1.0, 1.0)
    torch.testing.assert_close(weighted, solved(4 * of_style, 1.0, 1.0), rtol=1e-3, atol=1e-3)
    assert (weighted - equal).abs().max() > 0.01


def test_numbers_that_overflow_in_a_later_pass_are_said_and_change_nothing() -> None:
    model, _pairs, states = toy()
    denoise = model.denoise

    def overflowing(x: Tensor, sigma: Tensor, conditioning: Any, gates: Gates) -> Tensor:
        assert gates.values is not None
        students = (torch.arange(len(x)) >= gates.teachers).view(-1, 1, 1, 1) & gates.learned
        return denoise(torch.where(students, torch.inf, x), sigma, conditioning, gates)

    first = solve_coefficients(
        model, ["a", "b"], [(t, s[::3]) for t, s in states], ClosedFormSettings(1)
    )
    model.denoise = overflowing
    done = solve_coefficients(model, ["a", "b"], states, ClosedFormSettings(2))
    (note,) = done.notes
    assert note.startswith(
        "WARNING: 2 layers had non-finite inputs with the merge of an earlier pass"
    )
    for name, columns in first.columns.items():
        assert torch.equal(done.columns[name], columns)


@pytest.mark.parametrize("during", [1, 2, 3])
def test_a_stop_leaves_out_further_passes_and_in_the_last_one_comes_too_late(during: int) -> None:
    model, _pairs, states = toy()
    run, solved = Run("1"), []

    def on_layer() -> None:
        solved.append("a")
        if len(solved) == during:
            run.stop.set()

    settings = ClosedFormSettings(3, RIDGE, 8)
    passes: list[int] = []
    done = solve_coefficients(
        model, ["a"], states, settings, on_layer, run.take_stop, lambda: passes.append(len(solved))
    )
    assert done.passes == during
    assert passes == list(range(1, during + 1)), "told after each"
    left_out = during < 3
    assert done.notes == ([f"stopped after pass {during} on request"] if left_out else [])
    assert run.ending() == ("stopped" if left_out else "finished")


def test_second_pass_also_helps_where_only_one_teacher_drifts() -> None:
    """A content-only layer in front: the content teacher gives the merge's very input behind it."""
    model, pairs, states = toy()
    pairs = {**pairs, "a": ModulePair(pairs["a"].content, None)}
    model.branches = beside(pairs)
    states = [
        (teacher, with_targets(model.denoise, of_teacher, teacher, 8))
        for teacher, of_teacher in states
    ]
    errors = []
    for passes in (1, 2):
        settings = ClosedFormSettings(passes, RIDGE, 8)
        columns = solve_coefficients(model, ["b"], states, settings).columns
        model.branches["b"].fold(columns["b"])
        errors.append(sum(retention(model.denoise, part, 8) for _, part in states))
    assert errors[1] < 0.95 * errors[0]


def test_layer_whose_input_cannot_change_keeps_its_first_solution() -> None:
    model, _pairs, states = toy()
    one, two = (
        solve_coefficients(model, ["a"], shown, ClosedFormSettings(passes, RIDGE, 8)).columns["a"]
        for passes, shown in ((1, [(t, s[::3]) for t, s in states]), (2, states))
    )
    assert torch.equal(one, two)


def test_two_loras_that_do_nothing_are_an_error() -> None:
    model, pairs, states = toy()
    dead = LoraFactors(torch.zeros(2, WIDTH), torch.zeros(WIDTH, 2))
    pairs = {name: ModulePair(dead, dead) for name in pairs}
    model.branches = beside(pairs)
    with pytest.raises(ZipLoRAError, match="no layer with finite inputs"):
        solve_coefficients(model, list(pairs), states, ClosedFormSettings())


def test_modules_that_are_not_trained_stay_at_one() -> None:
    model, _pairs, states = toy()
    done = solve_coefficients(model, ["b"], states, ClosedFormSettings())
    assert list(done.columns) == ["b"]


def test_model_gets_its_own_branches_back() -> None:
    model, _pairs, states = toy()
    own = model.branches
    solve_coefficients(model, ["a"], states, ClosedFormSettings())
    assert model.branches is own and model.recorder is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_layer_without_usable_moments_is_said_and_keeps_its_coefficients(value: float) -> None:
    model, pairs, states = toy()
    rank, out = 2, WIDTH
    dead = LoraFactors(torch.full((rank, WIDTH), value), torch.zeros(out, rank))
    pairs = {**pairs, "b": ModulePair(dead, dead)}
    model.branches = beside(pairs)
    done = solve_coefficients(model, ["a", "b"], states, ClosedFormSettings(1, RIDGE, 8))
    (note,), columns = done.notes, done.columns
    assert "1 layers had no inputs, a zero update or non-finite" in note
    assert torch.equal(columns["b"], torch.ones(2, WIDTH))
    assert all(torch.isfinite(m).all() for m in columns.values())


def test_layer_that_never_ran_is_said() -> None:
    model, pairs, states = toy()
    model.branches = {**model.branches, "c": Branches(pairs["a"].factors)}
    done = solve_coefficients(model, ["a", "c"], states, ClosedFormSettings(1, RIDGE, 8))
    (note,), columns = done.notes, done.columns
    assert "no inputs, a zero update" in note and torch.equal(columns["c"], torch.ones(2, WIDTH))


def test_gates_select_teacher_and_student() -> None:
    """The first samples of a batch are teachers: their columns are one."""
    pair, layer, x = make_pair(), make_layer(0), torch.randn(4, 3, WIDTH)
    branches = Branches(pair.factors)
    columns = torch.rand(2, WIDTH)
    branches.fold(columns)
    rows = torch.tensor([[1.0, 0], [0, 1], [1, 1], [0, 0]])
    got = branches.delta(x, Gates(rows, teachers=2), layer)
    assert pair.content and pair.style
    content, style = pair.content.delta(), pair.style.delta()
    torch.testing.assert_close(got[0], x[0] @ content.T)
    torch.testing.assert_close(got[1], x[1] @ style.T)
    torch.testing.assert_close(got[2], x[2] @ (columns[0] * content + columns[1] * style).T)
    assert not got[3].any()
    assert Gates(rows, teachers=2).of([1, 2]).teachers == 1
