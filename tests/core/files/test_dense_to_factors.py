"""Dense updates: factored when they are numerically low-rank, refused by name when they are not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ziplora_core.errors import ZipLoRAError
from ziplora_core.files import lora_from_tensors
from ziplora_core.lora.factors import LoraFactors

D = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
ZIP = f"unet.unet.{D}.lora.weight"
DIFF = f"diffusion_model.{D}.diff"


def product(rank: int, *shape: int, seed: int = 0, decay: float = 1.0) -> Tensor:
    """A random update `(out, in, *k)` of a rank, its directions weaker by `decay` each."""
    rng = torch.Generator().manual_seed(seed)
    out, inner = shape[0], torch.Size(shape[1:]).numel()
    weights = decay ** torch.arange(rank)
    up, down = (torch.randn(*s, generator=rng) for s in ((out, rank), (rank, inner)))
    return (1e-3 * (up * weights) @ down).reshape(shape)


def factors(tensors: dict[str, Tensor]) -> LoraFactors:
    (found,) = lora_from_tensors(tensors).modules.values()
    return found


def error(found: LoraFactors, delta: Tensor) -> float:
    return float((found.delta() - delta).norm() / delta.norm())


@pytest.mark.parametrize(
    ("dtype", "limit"), [(torch.float32, 1e-5), (torch.float16, 3e-4), (torch.bfloat16, 3e-3)]
)
@pytest.mark.parametrize("shape", [(640, 640), (1280, 640), (640, 2048), (64, 96)])
def test_dense_ziplora_of_two_loras_has_their_rank_and_update(
    shape: tuple[int, int], dtype: torch.dtype, limit: float
) -> None:
    ranks = (64, 32) if min(shape) > 64 else (8, 4)
    content, style = (product(rank, *shape, seed=rank) for rank in ranks)
    columns = torch.linspace(0.5, 1.5, shape[1])
    delta = content * columns + style * columns.flip(0)
    found = factors({ZIP: delta.to(dtype)})
    assert found.rank == sum(ranks) and found.scale == 1.0
    assert error(found, delta) <= limit


def test_dense_ziplora_more_directions_than_the_first_try_are_all_found() -> None:
    delta = product(200, 640, 640)
    found = factors({ZIP: delta})
    assert found.rank == 200 and error(found, delta) <= 1e-5


def test_dense_half_precision_keeps_weak_directions_above_its_rounding() -> None:
    delta = product(12, 640, 640, decay=0.6)  # the last is 0.4 % of the first
    found = factors({ZIP: delta.half()})
    assert found.rank == 12 and error(found, delta) <= 3e-4


def test_dense_tiny_half_precision_numbers_are_judged_by_their_own_rounding() -> None:
    delta = 1e-3 * product(8, 640, 640)  # about 1e-6 each: float16 has steps of 6e-8 there
    found = factors({ZIP: delta.half()})
    assert found.rank == 8 and error(found, delta) <= 2e-2


@pytest.mark.parametrize("shape", [(64, 32, 3, 3), (64, 32, 1, 1), (64, 96)])
def test_full_difference_of_a_baked_lora_is_factored(shape: tuple[int, ...]) -> None:
    delta = product(6, *shape)
    found = factors({DIFF: delta})
    assert found.rank == 6 and found.down.shape[1:] == shape[1:]
    assert found.up.shape == (64, 6, *(1 for _ in shape[2:]))
    assert error(found, delta) <= 1e-5


def test_full_difference_beside_a_bias_is_factored_when_the_bias_is_dropped() -> None:
    tensors = {DIFF: product(4, 64, 64), DIFF + "_b": torch.ones(64)}
    lora = lora_from_tensors(tensors, bias_and_norm="drop")
    assert [f.rank for f in lora.modules.values()] == [4]


@pytest.mark.parametrize("key", [ZIP, DIFF])
@pytest.mark.parametrize("rank", [33, 64])
def test_dense_above_half_the_full_rank_is_refused_by_name(key: str, rank: int) -> None:
    with pytest.raises(
        ZipLoRAError,
        match=rf"^LORA_MODEL, key {key}: found a full-weight difference of 64 x 80 that is not "
        "low-rank, expected a plain LoRA, or a difference of at most rank 32",
    ):
        factors({key: product(rank, 64, 80)})


def test_dense_low_rank_with_a_little_of_everything_is_refused() -> None:
    noise = 1e-4 * product(640, 640, 640, seed=9)
    with pytest.raises(ZipLoRAError, match="not low-rank"):
        factors({ZIP: product(64, 640, 640) + noise})


def test_dense_flat_remainder_below_every_direction_is_refused_for_its_size() -> None:
    """Each of its 96 directions is lost in rounding, all together are more than that."""
    delta = product(8, 96, 96)
    flat = torch.linalg.qr(product(96, 96, 96, seed=3)).Q
    remainder = 1.5e-5 * delta.norm() * flat / flat.norm()
    assert factors({ZIP: delta}).rank == 8
    with pytest.raises(ZipLoRAError, match="not low-rank"):
        factors({ZIP: delta + remainder})


def test_dense_of_zeros_is_a_lora_that_does_nothing() -> None:
    found = factors({ZIP: torch.zeros(64, 64)})
    assert found.rank == 1 and not found.delta().any()


def test_dense_same_file_gives_the_same_factors() -> None:
    first, second = (factors({ZIP: product(16, 640, 640)}) for _ in range(2))
    assert torch.equal(first.down, second.down) and torch.equal(first.up, second.up)


def test_lora_from_tensors_dense_ziplora_tells_what_it_is() -> None:
    lora = lora_from_tensors({ZIP: product(4, 64, 64)})
    assert lora.formats == ("diffusers", "dense ZipLoRA")
    assert lora.notes == ("1 dense ZipLoRA modules converted exactly",)


def test_lora_from_tensors_damaged_dense_is_refused_by_key() -> None:
    delta = product(4, 64, 64)
    delta[3, 5] = float("nan")
    with pytest.raises(ZipLoRAError, match=f"key {ZIP}: found NaN or infinity"):
        factors({ZIP: delta})
