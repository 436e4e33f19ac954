"""Optimisers and schedules."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from ziplora_core.errors import ZipLoRAError
from ziplora_core.training.optimisers import learning_rate_factor, make_optimiser


def test_learning_rate_factor_warms_up_and_falls() -> None:
    linear = [learning_rate_factor(s, 10, "linear", 2) for s in range(10)]
    assert linear[:3] == [1 / 3, 2 / 3, 1.0] and linear[-1] == pytest.approx(1 / 8)
    cosine = [learning_rate_factor(s, 10, "cosine", 0) for s in range(11)]
    assert cosine[0] == 1.0 and cosine[5] == pytest.approx(0.5) and cosine[10] < 1e-9
    assert learning_rate_factor(9, 10, "constant", 0) == 1.0


def test_make_optimiser_adam_moves_by_the_learning_rate_under_tiny_gradients() -> None:
    leaf = torch.ones(3, requires_grad=True)
    optimiser = make_optimiser("adam", [leaf], [0.01])
    leaf.grad = torch.tensor([1e-9, -1e-9, 1e-3])
    optimiser.step()
    torch.testing.assert_close(leaf.detach(), torch.tensor([0.99, 1.01, 0.99]), atol=1e-5, rtol=0)


def test_make_optimiser_keeps_a_learning_rate_for_each_leaf() -> None:
    leaves = [torch.ones(2, requires_grad=True) for _ in range(2)]
    optimiser = make_optimiser("adamw", leaves, [0.1, 0.001])
    for leaf in leaves:
        leaf.grad = torch.ones(2)
    optimiser.step()
    moved = [float(1 - leaf.detach()[0]) for leaf in leaves]
    assert moved == pytest.approx([0.1 * 1.01, 0.001 * 1.01], rel=1e-4)  # with weight decay 0.01


Install = Callable[[str], None]


@pytest.fixture
def bitsandbytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a package of that name, with this code, in the place of any that is installed."""

    def forget() -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == "bitsandbytes"]:
            del sys.modules[name]

    def install(code: str) -> None:
        (tmp_path / "bitsandbytes").mkdir()
        (tmp_path / "bitsandbytes" / "__init__.py").touch()
        (tmp_path / "bitsandbytes" / "optim.py").write_text(code)
        monkeypatch.syspath_prepend(str(tmp_path))

    forget()
    yield install
    forget()


STEP = "import torch\nclass AdamW8bit(torch.optim.AdamW):\n    def step(self, closure=None):\n"


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("raise OSError('libcudart.so.13: cannot open shared object file')", "libcudart.so.13"),
        ("raise RuntimeError('CUDA setup failed')", "CUDA setup failed"),
        ("import triton_of_another_time", "triton_of_another_time"),
        ("", "has no attribute 'AdamW8bit'"),
        (f"{STEP}        raise NotImplementedError('not for the CPU')", "not for the CPU"),
        (f"{STEP}        str2optimizer8bit_blockwise", "str2optimizer8bit_blockwise"),
    ],
)
def test_make_optimiser_8bit_that_does_not_work_here_says_what_to_do(
    code: str, found: str, bitsandbytes: Install
) -> None:
    bitsandbytes(code)
    said = rf"a bitsandbytes that does not work on cpu \(.*{found}.*Choose adamw"
    with pytest.raises(ZipLoRAError, match=said):
        make_optimiser("adamw_8bit", [torch.ones(2, requires_grad=True)], [0.1])


def test_make_optimiser_8bit_without_its_package_says_what_to_do(
    bitsandbytes: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(ZipLoRAError, match=r"adamw_8bit: found no bitsandbytes.*Choose adamw"):
        make_optimiser("adamw_8bit", [torch.ones(2, requires_grad=True)], [0.1])


def test_make_optimiser_8bit_hands_rates_and_decay_on(bitsandbytes: Install) -> None:
    bitsandbytes("import torch\nAdamW8bit = torch.optim.AdamW")
    leaves = [torch.ones(2, requires_grad=True) for _ in range(2)]
    groups = make_optimiser("adamw_8bit", leaves, [0.1, 0.2], weight_decay=0.3).param_groups
    assert [(g["lr"], g["base"], g["eps"], g["weight_decay"]) for g in groups] == [
        (0.1, 0.1, 1e-8, 0.3), (0.2, 0.2, 1e-8, 0.3),
    ]  # fmt: skip
    assert [g["params"][0] is leaf for g, leaf in zip(groups, leaves, strict=True)] == [True] * 2
