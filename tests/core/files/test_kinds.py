"""Each parametrisation against its literal formula, and everything refused by name."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from ziplora_core.errors import ZipLoRAError
from ziplora_core.files import lora_from_tensors
from ziplora_core.lora.factors import LoraFactors

X = "lora_unet_x"
Tensors = Mapping[str, Tensor]


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def named(**parts: Tensor | float) -> dict[str, Tensor]:
    """Name the parts of one module; `up` and `down` get kohya's suffixes."""
    kohya = {role: f"lora_{role}.weight" for role in ("down", "up", "mid")}
    return {f"{X}.{kohya.get(role, role)}": torch.as_tensor(part) for role, part in parts.items()}


def factors(tensors: Tensors) -> LoraFactors:
    return lora_from_tensors(tensors).modules[X]


def tucker(core: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """LyCORIS' rebuild from a core `(r, r, k, k)`, down `(r, in)` and up `(r, out)`."""
    return torch.einsum("ijkl,jr,ip->prkl", core, down, up).contiguous()


def check(tensors: Tensors, expected: Tensor, rank: int) -> None:
    result = factors(tensors)
    assert result.rank == rank
    delta = result.delta().reshape(expected.shape)
    error = (delta - expected).norm() / expected.norm()
    assert error < 1e-6, f"relative error {error:.1e}"


LINEAR = {"down": random(4, 6), "up": random(8, 4)}


def test_lora_linear_and_convolutions_are_kept_as_they_are() -> None:
    for down, up in (((4, 6), (8, 4)), ((4, 6, 3, 3), (8, 4, 1, 1)), ((4, 54), (8, 4))):
        tensors = named(down=random(*down), up=random(*up), alpha=2.0)
        result = factors(tensors)
        assert torch.equal(result.down, random(*down)) and torch.equal(result.up, random(*up))
        assert result.alpha == 2.0


def test_lora_four_axes_of_a_linear_are_kept() -> None:
    assert factors(named(down=random(4, 6, 1, 1), up=random(8, 4, 1, 1))).down.ndim == 4


@pytest.mark.parametrize("down_shape", [(4, 6, 1, 1), (4, 6)])
def test_locon_core_folds_into_down(down_shape: tuple[int, ...]) -> None:
    mid, down, up = random(4, 4, 3, 3), random(*down_shape), random(8, 4, 1, 1)
    expected = 0.5 * tucker(mid, down.flatten(1), up.flatten(1).T)
    check(named(down=down, mid=mid, up=up, alpha=2.0), expected, rank=4)


def hada(out: int, width: int, rank: int) -> dict[str, Tensor]:
    shapes = {
        "w1_a": (out, rank),
        "w1_b": (rank, width),
        "w2_a": (out, rank),
        "w2_b": (rank, width),
    }
    return {f"hada_{part}": random(*shape) + len(part) for part, shape in shapes.items()}


def test_loha_linear_matches_the_hadamard_product() -> None:
    p = hada(32, 40, 3)
    expected = (p["hada_w1_a"] @ p["hada_w1_b"]) * (p["hada_w2_a"] @ p["hada_w2_b"]) * (1.5 / 3)
    check(named(**p, alpha=1.5), expected, rank=9)
    check(named(**p), expected * 2, rank=9)


def test_loha_flat_convolution_matches_the_hadamard_product() -> None:
    p = hada(32, 10 * 9, 3)
    expected = (p["hada_w1_a"] @ p["hada_w1_b"]) * (p["hada_w2_a"] @ p["hada_w2_b"])
    check(named(**p), expected, rank=9)


def test_loha_with_cores_matches_the_tucker_rebuild() -> None:
    p = {f"hada_w{i}_a": random(3, 32 + 0 * i) + i for i in (1, 2)}
    p |= {f"hada_w{i}_b": random(3, 20) - i for i in (1, 2)}
    p |= {f"hada_t{i}": random(3, 3, 3, 3) * i for i in (1, 2)}
    first, second = (tucker(p[f"hada_t{i}"], p[f"hada_w{i}_b"], p[f"hada_w{i}_a"]) for i in (1, 2))
    check(named(**p, alpha=6.0), first * second * 2, rank=9)
    assert factors(named(**p)).down.shape == (9, 20, 3, 3)


@pytest.mark.parametrize(("rows", "columns"), [(2, 4), (4, 2), (3, 3)])
def test_lokr_full_w1_matches_the_kronecker_product(rows: int, columns: int) -> None:
    w1, a, b = random(rows, columns), random(10, 2), random(2, 12)
    expected = torch.kron(w1, a @ b) * (5 / 2)
    tensors = named(lokr_w1=w1, lokr_w2_a=a, lokr_w2_b=b, alpha=5.0)
    check(tensors, expected, rank=2 * min(rows, columns))


def test_lokr_both_decomposed_matches_the_kronecker_product() -> None:
    parts = {"lokr_w1_a": random(6, 2), "lokr_w1_b": random(2, 5)}
    parts |= {"lokr_w2_a": random(10, 2), "lokr_w2_b": random(2, 12)}
    a1, b1, a2, b2 = parts.values()
    check(named(**parts), torch.kron(a1 @ b1, a2 @ b2), rank=4)


def test_lokr_flat_convolution_matches_the_kronecker_product() -> None:
    w1, a, b = random(2, 4), random(10, 2), random(2, 6 * 9)
    expected = torch.kron(w1, a @ b).reshape(20, 24, 3, 3)
    check(named(lokr_w1=w1, lokr_w2_a=a, lokr_w2_b=b), expected, rank=4)


@pytest.mark.parametrize("halves", [False, True])
def test_lokr_core_matches_the_kronecker_product(halves: bool) -> None:
    w1a, w1b, core, a, b = (
        random(4, 2),
        random(2, 4),
        random(2, 2, 3, 3),
        random(2, 10),
        random(2, 6),
    )
    first = {"lokr_w1_a": w1a, "lokr_w1_b": w1b} if halves else {"lokr_w1": w1a @ w1b}
    expected = torch.kron((w1a @ w1b)[:, :, None, None], tucker(core, b, a)) * (3 / 2)
    tensors = named(**first, lokr_t2=core, lokr_w2_a=a, lokr_w2_b=b, alpha=3.0)
    check(tensors, expected, rank=4 if halves else 8)
    assert factors(tensors).down.shape[1:] == (24, 3, 3)


def test_conversions_above_half_the_full_rank_say_the_rank_needed() -> None:
    assert factors(named(**hada(200, 220, 10))).rank == 100
    with pytest.raises(ZipLoRAError, match=r"LoHa that needs rank 121 .* expected at most 100"):
        factors(named(**hada(200, 220, 11)))
    with pytest.raises(ZipLoRAError, match=r"LoKr that needs rank 104 .* expected at most 100"):
        factors(named(lokr_w1=random(8, 8), lokr_w2_a=random(25, 13), lokr_w2_b=random(13, 99)))


def test_conversions_of_narrow_layers_are_always_fine() -> None:
    assert factors(named(**hada(4, 2880, 8))).rank == 64


def test_lora_from_tensors_notes_and_formats_tell_what_was_converted() -> None:
    lora = lora_from_tensors(named(**hada(32, 40, 3), alpha=1.0))
    assert lora.formats == ("kohya", "LoHa")
    assert lora.notes == ("1 LoHa modules converted exactly",)


REFUSED: dict[str, tuple[Tensors, str]] = {
    "DoRA": (named(**LINEAR, dora_scale=random(8, 1)), "DoRA in 1 modules"),
    "DoRA by input": (named(**LINEAR, dora_scale=random(1, 6)), "DoRA in 1 modules"),
    "DoRA of PEFT": (
        {
            "unet.x.lora_A.weight": random(4, 6),
            "unet.x.lora_B.weight": random(8, 4),
            "unet.x.lora_magnitude_vector.default.weight": random(8),
        },
        "DoRA in 1 modules",
    ),
    "DoRA of ai-toolkit": (named(**LINEAR, magnitude=random(8)), "DoRA in 1 modules"),
    "OFT": (named(oft_blocks=random(4, 2, 2), alpha=1.0), "OFT or BOFT in 1 modules"),
    "BOFT": (named(oft_blocks=random(2, 4, 2, 2), rescale=random(8, 1)), "OFT or BOFT in 1 modul"),
    "OFT diag": (named(oft_diag=random(4, 2)), "OFT or BOFT in 1 modules"),
    "OFT of PEFT": ({"base_model.model.x.oft_R.weight": random(4, 2)}, "OFT or BOFT in 1 modules"),
    "IA3": (named(weight=random(1, 8), on_input=torch.tensor(True)), "IA3 in 1 modules"),
    "T-LoRA": (
        {f"{X}.{k}": random(4, 6) for k in ("q_layer.weight", "p_layer.weight", "lambda_layer")},
        "T-LoRA in 1 modules",
    ),
    "GLoRA": (
        {f"{X}.{k}.weight": random(4, 4) for k in ("a1", "a2", "b1", "b2")},
        "GLoRA in 1 modules",
    ),
    "diff": (named(diff=random(8, 6)), "a full-weight difference of 8 x 6 that is not low-rank"),
    "set": (named(set_weight=random(8, 6)), "replaced or resized weights in 1 modules"),
    "reshape": (named(**LINEAR, reshape_weight=torch.tensor([8, 6])), "replaced or resized"),
    "full LoKr": (named(lokr_w1=random(2, 2), lokr_w2=random(4, 3)), "LoKr with an undecomposed"),
    "LoRA bias": (
        {"unet.x.lora_A.weight": random(4, 6), "unet.x.lora_B.bias": random(8)},
        "a trained LoRA bias in 1 modules",
    ),
    "scalar": (named(**LINEAR, scalar=0.3), "a trained scalar in 1 modules"),
}


@pytest.mark.parametrize(("tensors", "message"), REFUSED.values(), ids=REFUSED)
def test_lora_from_tensors_without_exact_factors_is_refused_by_name(
    tensors: Tensors, message: str
) -> None:
    with pytest.raises(ZipLoRAError, match=f"^LORA_MODEL, key .*: found {message}"):
        lora_from_tensors(tensors)


def test_lora_from_tensors_refusal_counts_the_modules() -> None:
    tensors = {k.replace(X, f"{X}{n}"): t for n in range(5) for k, t in REFUSED["DoRA"][0].items()}
    with pytest.raises(ZipLoRAError, match="DoRA in 5 modules"):
        lora_from_tensors({**tensors, **named(**LINEAR)})


BIAS_AND_NORM = {
    f"{X}.diff_b": random(8),
    "lora_unet_norm.diff": random(8),
    "lora_unet_norm.diff_b": random(8),
    "lora_unet_group.w_norm": random(8),
    "lora_unet_group.b_norm": random(8),
    "lora_unet_scalar.diff": torch.tensor(1.0),
}


def test_lora_from_tensors_bias_and_norm_are_refused_with_their_number() -> None:
    with pytest.raises(ZipLoRAError, match=r"bias or norm tensors \(6 such keys\)"):
        lora_from_tensors({**named(**LINEAR), **BIAS_AND_NORM})


def test_lora_from_tensors_bias_and_norm_can_be_dropped_with_a_note() -> None:
    lora = lora_from_tensors({**named(**LINEAR), **BIAS_AND_NORM}, bias_and_norm="drop")
    assert list(lora.modules) == [X]
    assert "6 bias and norm tensors left out" in lora.notes


def test_lora_from_tensors_nothing_but_norms_is_no_lora() -> None:
    with pytest.raises(ZipLoRAError, match="6 tensors, none of them a LoRA's"):
        lora_from_tensors(BIAS_AND_NORM, bias_and_norm="drop")


WRONG_SHAPES: dict[str, tuple[Tensors, str]] = {
    "unequal ranks": (named(down=random(4, 6), up=random(8, 3)), r"up.weight: found .* \[8, 3\]"),
    "transposed": (named(down=random(6, 4), up=random(4, 8)), "lora_up.weight: found the shape"),
    "up with a kernel": (named(down=random(4, 6, 1, 1), up=random(8, 4, 3, 3)), "lora_up.weight"),
    "flat up": (named(down=random(4, 6), up=random(8)), "lora_up.weight: found the shape"),
    "flat down": (named(down=random(4), up=random(8, 4)), "lora_down.weight: found the shape"),
    "scalar down": (named(down=1.0, up=random(8, 4)), "lora_down.weight: found the shape"),
    "core": (named(down=random(4, 6), mid=random(4, 3, 3, 3), up=random(8, 4)), "lora_mid.weight"),
    "core and kernel": (
        named(down=random(4, 6, 3, 3), mid=random(4, 4, 3, 3), up=random(8, 4)),
        "lora_down.weight",
    ),
    "LoHa": (named(**{**hada(32, 40, 3), "hada_w2_b": random(3, 41)}), "hada_w2_b"),
    "LoKr": (named(lokr_w1=random(2, 2, 1), lokr_w2_a=random(9, 1), lokr_w2_b=random(1, 9)), "w1"),
    "rank 0": (named(down=random(0, 6), up=random(8, 0)), r"found an empty tensor \[0, 6\]"),
}


@pytest.mark.parametrize(("tensors", "message"), WRONG_SHAPES.values(), ids=WRONG_SHAPES)
def test_lora_from_tensors_wrong_shape_names_the_key(tensors: Tensors, message: str) -> None:
    with pytest.raises(ZipLoRAError, match=message):
        lora_from_tensors(tensors)


INCOMPLETE: dict[str, tuple[Tensors, str]] = {
    "alpha alone": (named(alpha=1.0), "found alpha without down, up"),
    "mid alone": (named(mid=random(4, 4, 3, 3)), "found mid without down, up"),
    "LoHa": (named(hada_w1_a=random(8, 2)), "without hada_w1_b, hada_w2_a, hada_w2_b"),
    "LoHa core": (named(**hada(32, 40, 3), hada_t1=random(3, 3, 1, 1)), "w2_b without hada_t2"),
    "LoKr": (named(lokr_w1=random(2, 2), lokr_w2_a=random(8, 2)), "without lokr_w2_b"),
    "LoKr without w1": (named(lokr_w2_a=random(8, 2), lokr_w2_b=random(2, 8)), "without lokr_w1"),
    "two kinds": (named(**LINEAR, **hada(8, 6, 1)), "found the parts down, hada_w1_a"),
}


@pytest.mark.parametrize(("tensors", "message"), INCOMPLETE.values(), ids=INCOMPLETE)
def test_lora_from_tensors_incomplete_module_names_what_is_missing(
    tensors: Tensors, message: str
) -> None:
    with pytest.raises(ZipLoRAError, match=message):
        lora_from_tensors(tensors)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("half", ["down", "up"])
def test_lora_from_tensors_unbounded_factors_name_the_key(value: float, half: str) -> None:
    tensors = named(**{**LINEAR, half: LINEAR[half].clone().index_fill_(0, torch.tensor(1), value)})
    with pytest.raises(ZipLoRAError, match=f"key {X}.lora_{half}.weight: found NaN or infinity"):
        lora_from_tensors(tensors)


def test_lora_from_tensors_double_beyond_float32_is_refused() -> None:
    with pytest.raises(ZipLoRAError, match="NaN or infinity"):
        lora_from_tensors(named(down=LINEAR["down"].double() * 1e300, up=LINEAR["up"].double()))


def test_lora_from_tensors_leaves_its_input_alone() -> None:
    tensors = named(**{k: torch.nn.Parameter(t.half()) for k, t in LINEAR.items()}, alpha=1.0)
    before = {key: tensor.clone() for key, tensor in tensors.items()}
    result = factors(tensors)
    assert not result.down.requires_grad and result.down.dtype == torch.float32
    assert all(torch.equal(tensors[key], before[key]) for key in before)
