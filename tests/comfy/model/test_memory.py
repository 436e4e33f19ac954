"""The memory estimate of a training, and the mode chosen by it."""

from __future__ import annotations

import comfy.model_management
import pytest
import torch
from comfy.model_patcher import ModelPatcher

from ziplora_core.comfy_adapter.model.memory import PeakMemory, plan_memory
from ziplora_core.comfy_adapter.model.training_model import training_model

LEARNED = [torch.zeros(1000, requires_grad=True)]


def test_plan_counts_parameters_gradients_and_optimiser_state(model: ModelPatcher) -> None:
    with torch.inference_mode(False), training_model(model, {}) as opened:
        plan = plan_memory(opened, "fast", 1, 2, (128, 128), LEARNED)
        assert plan.learned == 1000 * 4 * 4  # value, gradient, two moments in float32
        weights = sum(p.numel() * 4 for p in opened.model.diffusion_model.parameters())
        assert plan.model == pytest.approx(weights, rel=0.01)
        assert plan.activations == 2 * 2 * 5.8 * 2**30  # twice bf16, two samples
        assert "memory=fast, estimated about 23.2 GiB" in str(plan)
        quarter = plan_memory(opened, "low", 2, 2, (64, 64), LEARNED)
        assert quarter.activations == pytest.approx(0.8 * 2**30) and opened.checkpointing


def test_plan_counts_the_casts_of_an_fp8_base_only_where_they_are_kept(
    model: ModelPatcher,
) -> None:
    model.model.diffusion_model.to(torch.float8_e4m3fn)
    model.cached_patcher_init = None
    with torch.inference_mode(False), training_model(model, {}) as opened:
        weights = sum(p.numel() for p in opened.model.diffusion_model.parameters())
        fast, low = (plan_memory(opened, m, 1, 1, (16, 16), LEARNED) for m in ("fast", "low"))
        assert fast.activations == pytest.approx(2 * 5.8 * 2**30 / 64 + 4 * weights)
        assert low.activations == pytest.approx(2 * 0.8 * 2**30 / 64)


@pytest.mark.parametrize(("gib", "memory"), [(24, "low"), (64, "fast")])
def test_plan_auto_follows_the_devices_memory(
    gib: int, memory: str, model: ModelPatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        comfy.model_management, "get_total_memory", lambda device: float(gib * 2**30)
    )
    with torch.inference_mode(False), training_model(model, {}) as opened:
        plan = plan_memory(opened, "auto", 1, 2, (128, 128), LEARNED)
        assert (plan.memory, opened.checkpointing) == (memory, memory == "low")
        assert "(auto; room for activations:" in str(plan)


def test_peak_grows_with_what_the_process_holds() -> None:
    peak = PeakMemory(torch.device("cpu"))
    peak.look()
    before = peak.bytes
    held = torch.ones(64 * 2**20)
    peak.look()
    del held
    grown = peak.bytes
    peak.look()
    assert grown >= before + 200 * 2**20 and peak.bytes == grown
    assert "of the whole process" in str(peak)
