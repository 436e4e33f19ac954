"""The loss terms: values by hand, and the behaviours the penalties are chosen for."""

from __future__ import annotations

import pytest
import torch

from ziplora_core.lora.coefficients import MergerCoefficients
from ziplora_core.lora.layers import LAYER_CHOICES, choose_layers
from ziplora_core.training.losses import (
    SIMILARITIES,
    coefficient_cosine,
    mean_squared_error,
    min_snr_weight,
    similarity_penalty,
)

M = torch.tensor([[1.0, 2.0, -1.0], [0.5, 1.0, 3.0]])
COS = torch.tensor([0.5, -1.0, 0.0])


@pytest.mark.parametrize(
    ("form", "value"),
    [
        ("cosine", 0.5 / (6.0 * 10.25) ** 0.5),
        ("dot_mean", (0.5 + 2.0 + 3.0) / 3),
        ("dot_sum", 0.5),
        ("column_cosine", (0.25 + 2.0 + 0.0) / 3),
    ],
)
def test_similarity_penalty_equals_the_value_by_hand(form: str, value: float) -> None:
    got = similarity_penalty(form, {"a": M, "b": M}, {"a": COS, "b": COS})
    assert float(got) == pytest.approx(2 * value, rel=1e-6)


def test_cosine_penalty_at_ones_has_no_gradient_and_the_dots_do() -> None:
    gradients = {}
    for form in SIMILARITIES:
        coefficients = MergerCoefficients({"a": 640})
        similarity_penalty(form, coefficients.by_module(), {"a": torch.ones(640)}).backward()
        assert coefficients.flat.grad is not None
        gradients[form] = float(coefficients.flat.grad.abs().max())
    assert gradients["cosine"] < 1e-9
    assert gradients["dot_sum"] == pytest.approx(1.0)
    assert gradients["dot_mean"] == pytest.approx(1 / 640)


def test_mean_squared_error_is_one_number_per_sample_in_float32() -> None:
    a, b = torch.zeros(2, 4, 3, 3).bfloat16(), torch.ones(2, 4, 3, 3)
    b[1] *= 3
    assert mean_squared_error(a, b).tolist() == [1.0, 9.0]


def test_min_snr_weight_equals_the_papers_formula() -> None:
    sigma = torch.tensor([0.1, 1.0, 10.0])
    eps = min_snr_weight(sigma, 5.0, v_prediction=False)
    torch.testing.assert_close(eps, torch.tensor([0.05, 1.0, 1.0]))
    v = min_snr_weight(sigma, 5.0, v_prediction=True)
    torch.testing.assert_close(v, torch.tensor([5 / 101, 0.5, 0.01 / 1.01]))
    assert min_snr_weight(sigma, 0.0, v_prediction=False).tolist() == [1.0, 1.0, 1.0]


def test_coefficient_cosine_is_the_mean_over_layers() -> None:
    columns = {"a": torch.ones(2, 4), "b": torch.tensor([[1.0, 0.0], [0.0, 1.0]])}
    assert coefficient_cosine(columns) == pytest.approx(0.5)


def test_merger_coefficients_views_share_the_leaf() -> None:
    coefficients = MergerCoefficients({"a": 3, "b": 2})
    columns = coefficients.by_module()
    assert coefficients.flat.shape == (10,) and columns["b"].shape == (2, 2)
    (columns["b"][1].sum() * 2).backward()
    assert coefficients.flat.grad is not None
    assert coefficients.flat.grad.tolist() == [0.0] * 8 + [2.0, 2.0]
    assert not coefficients.detached()["a"].requires_grad


def test_choose_layers_takes_what_the_name_says() -> None:
    block = "lora_unet_input_blocks_4_1_transformer_blocks_0_"
    modules = [
        (f"{block}attn1_to_q", 0),
        (f"{block}attn2_to_k", 0),
        (f"{block}attn2_to_out_0", 0),
        (f"{block}ff_net_0_proj", 0),
        ("lora_unet_input_blocks_4_0_in_layers_2", 2),
        ("lora_unet_input_blocks_3_0_op", 2),
    ]
    counts = {choice: len(choose_layers(choice, modules)) for choice in LAYER_CHOICES}
    assert counts == {
        "attention": 3,
        "attention_without_cross_kv": 2,
        "attention_ff": 4,
        "extended": 5,
        "all_linear": 4,
        "all": 6,
    }
