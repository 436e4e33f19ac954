"""Every trainer holds its checkpoint folder while it runs, and is refused where another does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .training_nodes import EACH, Trainer, pack_module


@pytest.mark.parametrize("trainer", EACH, indirect=True)
def test_same_training_elsewhere_is_refused_before_the_model_is_loaded(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ownership = pack_module("ziplora_core.training.ownership")
    held: list[Path] = []

    @contextmanager
    def noted(folder: Path) -> Iterator[None]:
        with ownership.owned(folder):
            held.append(folder)
            yield

    with monkeypatch.context() as patch:
        patch.setattr(trainer.session, "owned", noted)
        trainer.run()
    (folder,) = held
    assert not ownership.is_owned(folder) and not list(folder.parent.glob(".*"))

    def never(*_args: object, **_kwargs: object) -> None:
        raise AssertionError

    monkeypatch.setattr(trainer.session, "training_model", never)
    error = pack_module("ziplora_core.errors").ZipLoRAError
    with ownership.owned(folder), pytest.raises(error, match="the same training in the ComfyUI"):
        trainer.run()
