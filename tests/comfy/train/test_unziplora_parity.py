"""UnZipLoRA's training step equals the public implementation's with the same masks."""

from __future__ import annotations

import comfy.sd
import pytest
import torch
from torch import Tensor

from sandbox import tiny
from sandbox.diffusers_reference import diffusers_unet
from sandbox.unziplora_reference import UnZipLoRALinear, events, unziplora_linears, unziplora_loss
from ziplora_core.training.branches import Gates
from ziplora_core.training.framing import Framing
from ziplora_core.training.options import TrainingOptions
from ziplora_core.unziplora.feature_masks import Schedule
from ziplora_core.unziplora.options import UnZipLoRASettings
from ziplora_core.unziplora.parameters import UnZipLoRAParameters

from ...bench.engine.memory import saved_bytes
from .. import helpers
from .dreambooth_task import example
from .unziplora_task import TEXTS, closed, opened_unziplora

SIDE = 64
SETTINGS = UnZipLoRASettings(*TEXTS, rank=4, alone_share=0.0, options=TrainingOptions(batch=2))
FRAMES = (Framing.drawn(SIDE, SIDE), Framing((90, 70), (82, 64), (9, 0), (SIDE, SIDE)))


def assert_close(got: Tensor, want: Tensor, name: str) -> None:
    assert float((got - want).norm()) < 2e-4 * float(want.norm()) + 1e-9, name


@pytest.mark.parametrize("low", [False, True], ids=["fast", "low"])
def test_step_equals_the_public_ones(low: bool, clip: comfy.sd.CLIP) -> None:
    model = tiny.tiny_sdxl()
    shown = [example(n, frame, TEXTS[0]) for n, frame in enumerate(FRAMES)]
    with opened_unziplora(model, clip, SETTINGS, shown) as (task, encoded, drawn):
        closed(task)
        task.model.checkpointing = low
        terms = task.backward(5)
        assert task.model.evaluations == 2  # one prediction per sample, whatever is separated
        draws = task._draws(10)
        halves = [half.detached() for half in task.learned.halves]
        mergers, masks = task.learned.mergers.detached(), task.masks.by_module()
    linears = unziplora_linears(halves, mergers, masks)
    [x0s, noises], timesteps = (
        [torch.stack([d[i] for d in drawn[:2]]).float() for i in (0, 1)],
        torch.tensor([timestep for *_, timestep in drawn[:2]]),
    )
    contexts = [encoded[text][0][0].clone().expand(2, -1, -1) for text in TEXTS]
    pooled = encoded[TEXTS[0]][0][1]["pooled_output"].clone().expand(2, -1)
    sizes = torch.tensor([[*d.frame.original, *d.frame.crop, *d.frame.target] for d in draws])
    unet = diffusers_unet(model).requires_grad_(False)
    want = unziplora_loss(unet, linears, contexts, x0s, noises, timesteps, pooled, sizes, 0.5)
    torch.testing.assert_close(terms["loss"], want.detach(), rtol=2e-5, atol=0)
    want.backward()
    for k, half in enumerate(task.learned.halves):
        for name, gradient in half.gradient().items():
            assert_close(gradient.down, linears[name].down[k].grad, name)
            assert_close(gradient.up, linears[name].up[k].grad, name)
    grad = task.learned.mergers.flat.grad
    assert grad is not None
    overlap = task.masks.views(task.masks.overlap)
    for name, got in task.masks.views(grad).items():
        theirs = torch.stack([m.grad for m in linears[name].merge])
        assert_close(got, theirs * overlap[name], name)  # the rule that both have


def test_lora_path_keeps_less_than_two_fifths_of_the_dense_ones_tensors() -> None:
    """A layer of SDXL's widest blocks at 1024 × 1024, without the parameters themselves."""
    width, tokens, rank = 1280, 1024, 64
    learned = UnZipLoRAParameters({"a": (width, width)}, rank, seed=0)
    x = helpers.noise(1, tokens, width).requires_grad_()
    layer = torch.nn.Linear(width, width, bias=False).requires_grad_(False)
    rows = {"a": learned.mergers.by_module()["a"] * helpers.noise(2, width).gt(0)}

    def ours() -> Tensor:
        learned.fold(torch.float32, rows)
        return learned.branches["a"].delta(x, Gates(), layer)

    halves = [half.detached() for half in learned.halves]
    linear = unziplora_linears(halves, learned.mergers.by_module(), {"a": rows["a"] > 0})["a"]
    leaves = [*learned.leaves, *linear.down, *linear.up, *linear.merge]
    dense = saved_bytes(lambda: linear.forward(x, x), leaves)
    assert saved_bytes(ours, leaves) < 0.4 * dense


def test_schedule_equals_the_public_ones_for_the_papers_steps() -> None:
    ours = Schedule(600, 3)
    found = [(g, "open") for g in range(600) if ours.opens(g)]
    found += [(g, "recalibrate") for g in range(600) if ours.chooses(g)]
    assert sorted(found) == events(600, 3)


def test_public_choice_of_features_depends_on_a_gradients_scale_and_ours_does_not() -> None:
    """The reason for another rule here: a gradient scaler's factor alone empties the masks."""
    counts = []
    for scale in (1.0, 65536.0):
        factors = [(helpers.noise(4, 64, seed=k) / 4, helpers.noise(40, 4, seed=9 + k) / 4)
                   for k in range(2)]  # fmt: skip
        linear = UnZipLoRALinear(
            [down for down, _ in factors], [up for _, up in factors],
            [torch.ones(40)] * 2, [torch.zeros(40, dtype=torch.bool)] * 2,
        )  # fmt: skip
        for k in range(2):
            linear.down[k].grad = scale * 1e-5 * helpers.noise(4, 64, seed=20 + k)
            linear.up[k].grad = scale * 1e-5 * helpers.noise(40, 4, seed=30 + k)
        linear.extend_masks(0.25, owner=None)
        counts.append(int(linear.mask[0].sum()))
    assert 0 < counts[0] <= 10 and counts[1] == 0
