"""UnZipLoRA's objective on a toy: separation, masks, mergers, and the manners of the loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ziplora_core.errors import ZipLoRAError
from ziplora_core.lora.coefficients import CONTENT, STYLE
from ziplora_core.lora.factors import LoraFactors
from ziplora_core.training.branches import Branches, Gates, lengthened
from ziplora_core.training.checkpoint import CheckpointFolder
from ziplora_core.training.interface import LoopCallbacks, TrainingRecord
from ziplora_core.training.loop import train
from ziplora_core.training.optimisers import make_optimiser
from ziplora_core.training.options import TrainingOptions
from ziplora_core.unziplora.objective import UnZipLoRAObjective
from ziplora_core.unziplora.parameters import UnZipLoRAParameters

from ..lora.factors import exported, random_factors
from .unziplora_task import NAMES, STEPS, WIDTH, PromptToy, example, objective, text

LINEAR = torch.nn.Linear(WIDTH, WIDTH, bias=False)


class Cancelled(BaseException):
    """As ComfyUI's InterruptProcessingException: not an Exception."""


def run(
    task: UnZipLoRAObjective, folder: CheckpointFolder | None = None, **callbacks: Any
) -> TrainingRecord:
    return train(
        task, STEPS, task.options, LoopCallbacks(export=exported(task), **callbacks), folder
    )


def prompts(*names: str) -> Tensor:
    """One sample, a branch for each name."""
    return torch.stack([text(name) for name in names])[None]


def halves() -> list[LoraFactors]:
    return [random_factors(rank, WIDTH, WIDTH, seed=rank) for rank in (2, 3)]


def test_branches_read_their_own_prompts() -> None:
    content, style = halves()
    branches = Branches([content, style], reads_prompt=True)
    got = branches.delta(text("joint")[None], Gates(prompts=prompts("content", "style")), LINEAR)
    want = text("content") @ content.delta().T + text("style") @ style.delta().T
    torch.testing.assert_close(got[0], want, rtol=1e-5, atol=1e-4)
    strengths = Gates(torch.tensor([[0.5, 0.0]]), prompts=prompts("content", "style"))
    alone = branches.delta(text("joint")[None], strengths, LINEAR)
    want = 0.5 * text("content") @ content.delta().T
    torch.testing.assert_close(alone[0], want, rtol=1e-5, atol=1e-4)


def test_branches_with_the_same_prompt_are_two_plain_loras() -> None:
    given = halves()
    same = Gates(prompts=prompts("joint", "joint"))
    read = Branches(given, reads_prompt=True).delta(text("joint")[None], same, LINEAR)
    plain = Branches(given).delta(text("joint")[None], Gates(), LINEAR)
    torch.testing.assert_close(read, plain)


def test_branches_with_zero_prompts_add_nothing() -> None:
    gates = Gates(prompts=torch.zeros_like(prompts("joint", "joint")))
    read = Branches(halves(), reads_prompt=True).delta(text("joint")[None], gates, LINEAR)
    assert torch.count_nonzero(read) == 0


def test_branches_of_other_layers_pay_no_attention_to_prompts() -> None:
    gates = Gates(prompts=prompts("content", "style"))
    x = text("joint")[None]
    assert torch.equal(Branches(halves()).delta(x, gates, LINEAR),
                       Branches(halves()).delta(x, Gates(), LINEAR))  # fmt: skip


def test_branches_repeat_prompts_to_their_inputs_length_or_refuse() -> None:
    branches = Branches(halves(), reads_prompt=True)
    gates = Gates(prompts=prompts("content", "style"))
    one = branches.delta(text("joint")[None], gates, LINEAR)
    two = branches.delta(text("joint").repeat(2, 1)[None], gates, LINEAR)
    torch.testing.assert_close(two, one.repeat(1, 2, 1))
    for tokens in (1, 4):
        with pytest.raises(ZipLoRAError, match=f"found {tokens} tokens where content and style"):
            branches.delta(torch.zeros(1, tokens, WIDTH), gates, LINEAR)


def test_a_joint_prompt_is_lengthened_until_the_own_ones_fit_into_it() -> None:
    own, joint = prompts("content", "style"), text("joint")[None]
    assert lengthened(joint, None) is joint and lengthened(joint, own) is joint
    assert torch.equal(lengthened(joint[:, :2], own), joint[:, :2].repeat(1, 3, 1))
    longer = joint.repeat(1, 3, 1)
    assert lengthened(longer, own) is longer


def test_gates_for_guidance_read_nothing_in_the_second_half() -> None:
    gates = Gates(torch.tensor([[1.0, 0.5]]), prompts=prompts("content", "style"))
    both = gates.for_guidance(1)
    assert both.values is not None and both.prompts is not None
    assert both.values.tolist() == [[1.0, 0.5]] * 2
    assert torch.equal(both.prompts[0], prompts("content", "style")[0])
    assert torch.count_nonzero(both.prompts[1]) == 0
    assert Gates().for_guidance(2) == Gates()


def test_gates_of_samples_that_read_nothing_go_with_any_length() -> None:
    """Where ComfyUI itself would not batch the two prompts, each half runs alone."""
    branches = Branches(halves(), reads_prompt=True)
    both = Gates(prompts=prompts("content", "style")).for_guidance(1)
    short = torch.zeros(1, 2, WIDTH)
    assert torch.count_nonzero(branches.delta(short, both.of([1]), LINEAR)) == 0
    with pytest.raises(ZipLoRAError, match="found 2 tokens where content and style read 3"):
        branches.delta(short, both.of([0]), LINEAR)


def test_folded_rows_equal_the_dense_definition() -> None:
    """y = W0 x + Σ_k m_k M_k ⊙ (delta_k x_k): acceptance test (a)."""
    task = objective()
    for step in range(2):
        task.backward(step)
    with torch.no_grad():
        task.learned.mergers.flat.uniform_(0, 1, generator=torch.Generator().manual_seed(1))
        task.fold()
    m, M = task.learned.mergers.by_module(), task.masks.by_module()
    content, style = (half.detached() for half in task.learned.halves)
    gates = Gates(prompts=prompts("content", "style"))
    for name in NAMES:
        reads = name.endswith("attn2_to_k")
        x_c, x_s = (text(t if reads else "joint") for t in ("content", "style"))
        want = (x_c @ content[name].delta().T) * (m[name] * M[name])[CONTENT]
        want = want + (x_s @ style[name].delta().T) * (m[name] * M[name])[STYLE]
        got = task.learned.branches[name].delta(text("joint")[None], gates, LINEAR)[0]
        assert float((got - want).detach().abs().max()) < 1e-5


def test_alone_has_masks_but_no_mergers_and_merged_has_both() -> None:
    """The merged LoRA is the combined picture's."""
    task = objective()
    run(task)
    with torch.no_grad():
        task.learned.mergers.flat.fill_(0.5)
    raw = [half.detached() for half in task.learned.halves]
    merged = task.merged()
    assert merged.prompt_separated and merged.separable
    for k, lora in enumerate(task.parts().values()):
        for name in NAMES:
            mask = task.masks.by_module()[name][k].float()
            assert torch.equal(lora[name].up, raw[k][name].up * mask[:, None])
            half = merged.pairs[name].factors[k]
            assert half is not None and torch.equal(half.up, 0.5 * lora[name].up)
            assert torch.equal(half.down, lora[name].down) and half.scale == 1


def test_feature_masks_of_a_whole_run_have_their_shares() -> None:
    """Shares and owners of the feature masks, through the objective."""
    task = objective(column_ratio=0.1)
    run(task)
    for name, mask in task.masks.by_module().items():
        owner = task.masks.owned.get(name)
        want = [round(0.3 * WIDTH)] * 2
        if owner is None:
            assert not mask.all(0).any()
        else:
            want[owner] = WIDTH
        assert mask.sum(1).tolist() == want


def test_choice_of_features_leaves_parameters_and_the_steps_gradient() -> None:
    few, many = objective(importance_samples=1), objective(importance_samples=5)
    gradients = []
    for task in (few, many):
        before = [leaf.detach().clone() for leaf in task.parameters]
        task.backward(1)
        assert all(torch.equal(a, b) for a, b in zip(before, task.parameters, strict=True))
        gradients.append([leaf.grad for leaf in task.parameters])
        assert task.masks.chosen
    for a, b in zip(*gradients, strict=True):
        assert (a is None and b is None) or torch.equal(a, b)
    assert gradients[0][2] is None  # mergers wait until there is an overlap to weigh
    assert few.model.calls == 2 and many.model.calls == 6


def test_gradient_that_is_not_finite_while_features_are_chosen_shows_in_the_loss() -> None:
    task = objective(importance_samples=2)
    errors, hooked = task._errors, []

    def broken(draws: Any, branches: bool = True) -> Tensor:
        found = errors(draws, branches)
        if not hooked:
            hooked.append(found.register_hook(lambda gradient: gradient * torch.nan))
        return found

    assert objective(importance_samples=2).backward(1)["loss"].isfinite()
    task._errors = broken
    assert task.backward(1)["loss"].isnan()


def test_sample_alone_trains_one_lora_as_if_the_other_did_not_exist() -> None:
    """Masks and mergers are there, and mergers do not count."""
    task = objective(alone_share=1.0, sample_times=1)
    for step in range(2):
        task.backward(step)
    with torch.no_grad():
        task.learned.mergers.flat.fill_(0.5)
    seen = set()
    for step in range(2, 10):
        for leaf in task.parameters:
            leaf.grad = None
        loss = task.backward(step)["instance"]
        (draw,) = task._draws(step)
        half = ("content", "style").index(draw.caption)
        raw = task.learned.halves[half].detached()
        factors = {
            n: LoraFactors(f.down.requires_grad_(), f.up.requires_grad_(), f.alpha)
            for n, f in raw.items()
        }
        masks = task.masks.by_module()
        model = PromptToy(
            {
                n: Branches([LoraFactors(f.down, f.up * masks[n][half].float()[:, None], f.alpha)])
                for n, f in factors.items()
            }
        )
        denoised = model.denoise(draw.x[None], draw.sigma[None], [text(draw.caption)], Gates())
        error = (denoised - draw.target).square().mean()
        error.backward()
        torch.testing.assert_close(loss, error.detach(), rtol=1e-5, atol=1e-6)
        for k, own in enumerate(task.learned.halves):
            for name, got in own.gradient().items():
                for side in ("down", "up"):
                    want = getattr(factors[name], side).grad if k == half else torch.zeros(1)
                    got_side = getattr(got, side)
                    torch.testing.assert_close(
                        got_side, want.expand_as(got_side), rtol=1e-4, atol=1e-6
                    )
        seen.add(half)
    assert seen == {CONTENT, STYLE}


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_alone_share_is_the_share_of_the_samples_half_content_half_style(share: float) -> None:
    task = objective(TrainingOptions(batch=2000), alone_share=share, content="content")
    captions = [draw.caption for draw in task._draws(0)]
    for caption, want in (("joint", 1 - share), ("content", share / 2), ("style", share / 2)):
        assert abs(captions.count(caption) / len(captions) - want) < 0.03


def test_empty_and_class_captions_are_never_learned_alone() -> None:
    options = TrainingOptions(batch=50, caption_dropout=1.0)
    task = objective(options, alone_share=1.0, classes=[example("class")])
    assert {draw.caption for draw in task._draws(0)} == {""}


def test_mergers_move_on_the_overlap_only_and_stay_within_bounds() -> None:
    task = objective(weight_learning_rate=0.5)
    record = run(task)
    m, overlap = task.learned.mergers.flat.detach(), task.masks.overlap
    assert overlap.any() and (m[overlap] != 1).any() and (m[~overlap] == 1).all()
    assert float(m.min()) >= 0 and float(m.max()) <= 1
    assert record.history["penalty"][:2] == [0, 0] and record.history["penalty"][2] > 0


def test_penalty_is_the_mean_over_features_and_layers() -> None:
    task = objective(similarity_weight=0.0)
    for step in range(2):
        task.backward(step)
    with torch.no_grad():
        task.learned.mergers.flat.mul_(0.5)
    for leaf in task.parameters:
        leaf.grad = None
    terms = task.backward(2)
    want = [float(mask.all(0).float().mean()) * 0.25 for mask in task.masks.by_module().values()]
    assert float(terms["penalty"]) == pytest.approx(sum(want) / len(want))
    assert torch.equal(terms["loss"], terms["instance"])


def test_disjoint_mergers_leave_nothing_in_common_and_are_never_trained() -> None:
    task = objective(mergers="disjoint")
    run(task)
    assert not task.masks.overlap.any() and (task.learned.mergers.flat == 1).all()
    content, style = task.parts().values()
    assert len(content) < len(NAMES) and len(style) < len(NAMES)  # none in the other one's blocks
    assert {*content, *style} == set(NAMES)


def test_without_feature_masks_both_have_all_and_no_mergers() -> None:
    task = objective(column_separation=False)
    record = run(task)
    assert not task.masks.chosen and (task.learned.mergers.flat == 1).all()
    content, style = task.parts().values()
    merged = task.merged()
    for name in NAMES:
        assert torch.equal(merged.pairs[name].content.up, content[name].up)
        assert torch.equal(merged.pairs[name].style.up, style[name].up)
    assert set(record.history["penalty"]) == {0}


def test_equal_prompts_learn_what_two_summed_loras_learn() -> None:
    """With x_c = x_s = x."""
    task = objective(content="joint", style="joint", column_separation=False)
    task.backward(0)
    with_prompts = [half.flat.grad.clone() for half in task.learned.halves]
    for half in task.learned.halves:
        half.flat.grad = None
    task.gates = lambda draws: Gates()
    task.backward(0)
    for half, want in zip(task.learned.halves, with_prompts, strict=True):
        torch.testing.assert_close(half.flat.grad, want)


def test_class_pictures_are_a_term_of_their_own_at_the_class_prompt() -> None:
    task = objective(classes=[example("class", 3.0)], prior_weight=0.25)
    terms = task.backward(0)
    assert float(terms["loss"]) == pytest.approx(float(terms["instance"] + 0.25 * terms["prior"]))
    (prior,) = (draw for draw in task._draws(0) if draw.term == "prior")
    read = task.gates([prior]).prompts
    assert read is not None and torch.equal(read[0], torch.stack([text("class")] * 2))


def test_prompts_of_other_lengths_are_batches_of_their_own() -> None:
    """Lengths 3 and 5 would be 15 in one batch; the toy refuses to stack them."""
    alike, other = (objective(classes=[example("class", 3.0)]) for _ in range(2))
    long = text("class").mean(0, keepdim=True).repeat(5, 1)
    for task, read in ((alike, long[:3]), (other, long)):
        task.prompts = {**task.prompts, "class": torch.stack([read] * 2)}
        task.conditioner = lambda requests, read=read: [
            read if caption == "class" else text(caption) for caption, _ in requests
        ]
        task.backward(0)
    assert (alike.model.calls, other.model.calls) == (1, 2)
    for ours, want in zip(other.learned.halves, alike.learned.halves, strict=True):
        torch.testing.assert_close(ours.flat.grad, want.flat.grad)


def test_dropped_caption_leaves_nothing_to_read_for_either() -> None:
    task = objective(TrainingOptions(caption_dropout=1.0))
    (draw,) = task._draws(0)
    read = task.gates([draw]).prompts
    assert draw.caption == "" and read is not None and torch.equal(read[0, 0], text(""))


def test_train_lowers_the_loss_on_fixed_noise() -> None:
    task = objective(TrainingOptions(batch=4, held_out_draws=8))
    without = task.held_out(branches=False)
    run(task)
    after = task.held_out()
    assert without is not None and after is not None and after < 0.9 * without


def test_start_is_normal_noise_of_one_over_the_rank_and_differs_between_the_two() -> None:
    for rank in (4, 16):
        learned = UnZipLoRAParameters({"a": (400, 300), "b": (500, 200)}, rank, seed=0)
        content, style = (half.detached() for half in learned.halves)
        for factors in (*content.values(), *style.values()):
            assert factors.scale == 1
            for drawn in (factors.down, factors.up):
                assert abs(float(drawn.mean())) < 0.1 / rank
                assert float(drawn.std()) * rank == pytest.approx(1, rel=0.05)
        for name in content:
            assert abs(_cosine(content[name].down, style[name].down)) < 0.1
            assert abs(_cosine(content[name].up, style[name].up)) < 0.1


def _cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.cosine_similarity(a.flatten(), b.flatten(), dim=0))


def test_each_lora_has_a_learning_rate_of_its_own() -> None:
    task = objective(content_learning_rate=0.0, style_learning_rate=1e-2)
    content, style, _ = (leaf.detach().clone() for leaf in task.parameters)
    run(task)
    assert torch.equal(task.parameters[0], content) and not torch.equal(task.parameters[1], style)


def test_optimiser_has_three_groups_that_all_decay_as_published() -> None:
    task = objective(
        content_learning_rate=1e-5, style_learning_rate=2e-5, weight_learning_rate=3e-3
    )
    groups = make_optimiser(
        task.optimiser, task.parameters, task.learning_rates, task.weight_decay
    ).param_groups
    assert [group["lr"] for group in groups] == [1e-5, 2e-5, 3e-3]
    assert [group["weight_decay"] for group in groups] == [1e-4] * 3
    assert [group["params"][0] is leaf for group, leaf in
            zip(groups, task.parameters, strict=True)] == [True] * 3  # fmt: skip


def test_train_same_seed_bit_identical_other_seed_not() -> None:
    tasks = [objective(seed=s) for s in (1, 1, 2)]
    for task in tasks:
        run(task)
    first, second, other = (torch.cat([p.flatten() for p in t.parameters]) for t in tasks)
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert torch.equal(tasks[0].masks.flat, tasks[1].masks.flat)


@pytest.mark.parametrize("at", range(1, STEPS))
def test_train_cancelled_at_any_step_resumes_bit_identical(at: int, tmp_path: Path) -> None:
    whole = objective()
    history = run(whole).history

    def cancel(record: TrainingRecord) -> None:
        if record.step == at:
            raise Cancelled

    folder = CheckpointFolder(tmp_path / "run")
    with pytest.raises(Cancelled):
        run(objective(), folder, on_step=cancel)
    resumed = objective()
    record = run(resumed, folder)
    assert record.resumed_at == at and record.history == history
    assert torch.equal(resumed.masks.flat, whole.masks.flat)
    for ours, theirs in zip(resumed.parameters, whole.parameters, strict=True):
        assert torch.equal(ours, theirs)


def test_train_that_goes_wrong_gives_back_the_feature_masks_of_its_parameters() -> None:
    task = objective()
    backward = task.backward

    def broken(step: int) -> dict[str, Tensor]:
        terms = backward(step)
        return terms if step < 9 else {**terms, "loss": terms["loss"] * torch.nan}

    task.backward = broken
    record = train(
        task, STEPS, task.options, LoopCallbacks(export=exported(task), start_counts=True)
    )
    assert record.failed and record.step == 0
    assert not task.masks.chosen
