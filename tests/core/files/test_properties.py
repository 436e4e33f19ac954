"""Properties of reading, the algebra and writing, for any ranks, shapes, kernels and dtypes."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ziplora_core.files import lora_from_tensors, read_lora
from ziplora_core.files.peft_patterns import name_patterns
from ziplora_core.files.safetensors_writer import file_parts
from ziplora_core.files.writer import DTYPES, kohya_tensors, lora_bytes
from ziplora_core.lora.factors import LoraFactors
from ziplora_core.lora.magnitude import bound, exceeds
from ziplora_core.lora.merged import MergedLoRA, join
from ziplora_core.lora.pair import ModulePair
from ziplora_core.lora.svd import inner_product, svd_of_factors, truncate

from .hostile import Q

quick = settings(max_examples=60, deadline=None, derandomize=True, database=None)
sizes = st.integers(1, 6)
kernels = st.sampled_from([(), (1, 1), (3, 3), (2, 3)])
seeds = st.integers(0, 1000)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@st.composite
def factors(draw: st.DrawFn, out: int = 0, inner: tuple[int, ...] = ()) -> LoraFactors:
    """Draw factors of any rank and alpha; of any shape unless one is given."""
    rank = draw(sizes)
    out, inner = out or draw(sizes), inner or (draw(sizes), *draw(kernels))
    seed = draw(seeds)
    up = drawn(seed + 1, out, rank, *(1 for _ in inner[1:]))
    alpha = draw(st.none() | st.floats(-8, 8, width=32))
    return LoraFactors(drawn(seed, rank, *inner), up, alpha)


@st.composite
def pairs(draw: st.DrawFn) -> ModulePair:
    """Draw two updates of one shape, of which one may be absent."""
    content = draw(factors())
    style = draw(factors(len(content.up), tuple(content.down.shape[1:])))
    absent = draw(st.sampled_from(["", "content", "style"]))
    return ModulePair(*(None if role == absent else f
                        for role, f in (("content", content), ("style", style))))  # fmt: skip


def close(got: Tensor, want: Tensor) -> bool:
    return torch.allclose(got, want, rtol=1e-4, atol=1e-4 * float(1 + want.abs().max()))


@quick
@given(pairs(), st.floats(-2, 2, width=32), st.floats(-2, 2, width=32))
def test_join_is_the_weighted_sum_of_the_updates(pair: ModulePair, w_c: float, w_s: float) -> None:
    joined = join(pair, None, (w_c, w_s))
    parts = [w * f.delta() for w, f in zip((w_c, w_s), pair.factors, strict=True) if f and w]
    assert (joined is None) == (not parts)
    assert joined is None or close(joined.delta(), sum(parts, torch.zeros(())))


@quick
@given(pairs(), seeds)
def test_join_scales_the_columns_of_each_update(pair: ModulePair, seed: int) -> None:
    columns = drawn(seed, 2, pair.one.down.shape[1])
    joined = join(pair, columns)
    kernel = pair.one.down.ndim - 2
    expected = sum(
        (f.delta() * m.view(1, -1, *(1,) * kernel)
         for f, m in zip(pair.factors, columns, strict=True) if f), torch.zeros(())
    )  # fmt: skip
    assert joined is not None and close(joined.delta(), expected)


@quick
@given(factors())
def test_norms_and_bounds_are_those_of_the_dense_update(update: LoraFactors) -> None:
    delta = update.delta().double()
    largest = float(delta.abs().max())
    assert abs(inner_product(update, update) - float(delta.square().sum())) <= 1e-3 * (
        1 + float(delta.square().sum())
    )
    assert bound(update) >= largest * (1 - 1e-5)
    assert exceeds(update, largest / 2) == (largest > 0)
    assert not exceeds(update, largest * 1.001 + 1e-6)


@quick
@given(factors(), sizes)
def test_truncate_loses_the_smaller_singular_values(update: LoraFactors, rank: int) -> None:
    kept = truncate(update, rank)
    lost = (update.delta() - kept.factors.delta()).double().square().sum()
    assert kept.factors.rank <= max(rank, update.rank)
    s = svd_of_factors(update)[1]
    expected = float(s[rank:].square().sum()) if update.rank > rank else 0.0
    assert abs(float(lost) - expected) <= 1e-3 * (1 + float(s.square().sum()))


@quick
@given(st.lists(factors(), min_size=1, max_size=3), st.sampled_from([*DTYPES]))
def test_save_load_save_gives_the_same_bytes(updates: list[LoraFactors], dtype: str) -> None:
    modules = {Q.replace("_0_attn", f"_{n}_attn"): f for n, f in enumerate(updates)}
    first = lora_bytes(modules, {"a": "é"}, DTYPES[dtype])
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        path.write_bytes(first)
        read = read_lora(path)
    stored = {k: text for k, text in read.metadata.items() if not re.match("sshs|modelspec", k)}
    assert lora_bytes(read.modules, stored, DTYPES[dtype]) == first


@quick
@given(factors(), st.sampled_from([*DTYPES]))
def test_a_stored_update_is_that_of_the_factors(update: LoraFactors, dtype: str) -> None:
    tensors = kohya_tensors({Q: update}, DTYPES[dtype])
    file_parts(tensors, {})
    read = lora_from_tensors(tensors).modules[Q]
    error = (read.delta() - update.delta()).abs().max()
    assert error <= {"fp16": 2e-2, "bf16": 1e-1, "fp32": 1e-4}[dtype] * (1 + bound(update))


@quick
@given(pairs())
def test_one_sided_merges_have_the_rank_of_their_halves(pair: ModulePair) -> None:
    joined = MergedLoRA({Q: pair}).modules()
    ranks = sum(f.rank for f in pair.factors if f)
    assert joined[Q].rank == ranks


words = st.sampled_from(["a", "b", "to_q", "attn1", "0", "."])
names = st.lists(words, min_size=1, max_size=8).map("".join)
parts = st.sampled_from(["a", "b", "to_q", "attn1", "0", "\\.", ".", ".*", "[ab]", "(a|b)", "\\d"])
patterns = st.lists(parts, min_size=1, max_size=6).map("".join)


@settings(quick, max_examples=2000)
@given(patterns, st.booleans(), names)
def test_name_patterns_match_as_peft_does(pattern: str, whole: bool, name: str) -> None:
    pattern = "^" * whole + pattern
    found = name_patterns(pattern)
    assert found is not None
    expected = re.match(rf"(.*\.)?({pattern})$", name) is not None
    assert any(each.matches(name) for each in found) == expected


def test_name_patterns_of_a_hostile_form_take_no_time() -> None:
    found = name_patterns(".*a" * 300 + "b")
    assert found is not None and not any(each.matches("a." * 500) for each in found)
