"""The state from which a training goes on, as it is in a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .resume_key import VERSION
from .state_file import UnusableStateError

Layout = tuple[tuple[int, ...], torch.dtype]
"""The shape and dtype of a tensor."""
_PARAMETERS, _EXTRA, _HISTORY, _OPTIMISER = "parameters", "extra", "history", "optimiser"
_TYPES: Mapping[str, type] = {
    "step": int, "steps": int, "seconds": float, "notes": list, "low_memory": bool,
    "ended": str, "failed": bool,
}  # fmt: skip
"""The values that are not tensors, with the types that they have in JSON."""


@dataclass(frozen=True)
class SavedState:
    """Everything that a resumed training needs.

    Args:
        parameters: the parameters.
        extra_state: the task's `extra_state`.
        history: the loss terms of every step.
        step, steps: number of steps done, and of the whole training.
        optimiser: the optimiser's state of each parameter; empty when the training has ended, as
            no step follows.
        seconds: time taken.
        notes: notes for the report.
        low_memory: whether memory ran out, so that it went on with low memory.
        ended: the reason why it ended before its last step, "" if it did not.
        failed: whether it ended as the loss failed.
    """

    parameters: Sequence[Tensor]
    extra_state: Mapping[str, Tensor]
    history: Mapping[str, Sequence[float]]
    step: int
    steps: int
    optimiser: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    seconds: float = 0.0
    notes: Sequence[str] = ()
    low_memory: bool = False
    ended: str = ""
    failed: bool = False

    @property
    def has_ended(self) -> bool:
        """Whether no step follows."""
        return self.step == self.steps or bool(self.ended)

    def packed(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the tensors by name, and the JSON values, of the checkpoint's file."""
        tensors = {f"{_PARAMETERS}/{n}": tensor for n, tensor in enumerate(self.parameters)}
        tensors |= {f"{_EXTRA}/{name}": tensor for name, tensor in self.extra_state.items()}
        for name, values in self.history.items():
            tensors[f"{_HISTORY}/{name}"] = torch.tensor(values, dtype=torch.float64)
        plain: dict[str, dict[str, Any]] = {}
        for number, state in self.optimiser.items():
            plain[str(number)] = {}
            for name, value in state.items():
                if torch.is_tensor(value):
                    tensors[f"{_OPTIMISER}/{number}/{name}"] = value
                else:
                    plain[str(number)][name] = value
        said = {name: getattr(self, name) for name in _TYPES} | {"notes": [*self.notes]}
        return tensors, {"version": VERSION, **said, _OPTIMISER: plain}


def unpacked(tensors: Mapping[str, Tensor], said: Mapping[str, Any]) -> SavedState:
    """Build the state from the contents of a checkpoint's file.

    Raises:
        UnusableStateError: another version wrote it, or the contents are none of a state.
    """
    if said.get("version") != VERSION:
        raise UnusableStateError(
            f"it is of version {said.get('version')} of the training, and this is version {VERSION}"
        )
    values: dict[str, Any] = {name: said.get(name) for name in _TYPES}
    wrong = [name for name, kind in _TYPES.items() if type(values[name]) is not kind]
    if wrong or not all(isinstance(note, str) for note in values["notes"]):
        raise UnusableStateError(f"it has another kind of value for {', '.join(wrong) or 'notes'}")
    groups: dict[str, dict[str, Tensor]] = {_PARAMETERS: {}, _EXTRA: {}, _HISTORY: {}}
    optimiser = _plain_state(said.get(_OPTIMISER))
    for key, tensor in tensors.items():
        group, _, name = key.partition("/")
        number, _, entry = name.partition("/")
        if group in groups:
            groups[group][name] = tensor
        elif group == _OPTIMISER and number in optimiser:
            optimiser[number][entry] = tensor
        else:
            raise UnusableStateError(f"it has a tensor {key} that belongs to nothing")
    numbered = [groups[_PARAMETERS].get(str(n)) for n in range(len(groups[_PARAMETERS]))]
    parameters = [tensor for tensor in numbered if tensor is not None]
    if len(parameters) != len(numbered):
        raise UnusableStateError("its parameters are not numbered one after the other")
    return SavedState(
        parameters, groups[_EXTRA], _history(groups[_HISTORY]),
        optimiser={int(number): state for number, state in optimiser.items()}, **values,
    )  # fmt: skip


def check_fit(
    state: SavedState,
    steps: int,
    parameters: Sequence[Tensor],
    extra: Mapping[str, Layout],
    optimiser: Mapping[int, Mapping[str, Layout | type]],
) -> None:
    """Check that a training can go on from a state exactly.

    Args:
        state: the state.
        steps: number of steps of the training.
        parameters: the training's parameters.
        extra: the layout of its extra state at the state's step.
        optimiser: the layout of the optimiser's state of each parameter; types of what is no
            tensor.

    Raises:
        UnusableStateError: it cannot; the message says what differs.
    """
    if not min(1, steps) <= state.step <= steps or state.steps != steps:
        raise UnusableStateError(f"it is of step {state.step} of {state.steps}, not of {steps}")
    if (state.failed and not state.ended) or not 0 <= state.seconds < math.inf:
        raise UnusableStateError("its record contradicts itself")
    if len(state.history.get("loss", ())) != state.step:
        raise UnusableStateError(f"it has no loss for each of its {state.step} steps")
    if any(len(values) > state.step for values in state.history.values()):
        raise UnusableStateError("it has more losses than steps")
    _same_layout("parameters", _numbered(state.parameters), _numbered(parameters))
    _same_layout("extra state", _layouts(state.extra_state), extra)
    expected = {} if state.has_ended else optimiser
    kept = state.optimiser  # without those parameters that have had no gradient yet
    if not kept.keys() <= expected.keys() or bool(kept) != bool(expected):
        raise UnusableStateError("its optimiser has the state of other parameters")
    for number, values in kept.items():
        _same_layout("optimiser's state", _layouts(values), expected[number])


def layout_of(value: Any) -> Layout | type:
    """Return a tensor's shape and dtype, or the type of anything else."""
    return (tuple(value.shape), value.dtype) if torch.is_tensor(value) else type(value)


def _layouts(values: Mapping[str, Any]) -> dict[str, Layout | type]:
    return {name: layout_of(value) for name, value in values.items()}


def _numbered(tensors: Sequence[Tensor]) -> dict[str, Layout | type]:
    return _layouts({str(n): tensor for n, tensor in enumerate(tensors)})


def _same_layout(
    what: str, found: Mapping[str, Layout | type], expected: Mapping[str, Layout | type]
) -> None:
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            raise UnusableStateError(
                f"its {what} {name}: found {found.get(name)}, expected {expected.get(name)}"
            )


def _plain_state(said: Any) -> dict[str, dict[str, Any]]:
    """Return the optimiser's values that are no tensors, by the number of the parameter."""
    if not isinstance(said, dict) or not all(
        number.isascii() and number.isdigit() and len(number) < 9 and isinstance(state, dict)
        for number, state in said.items()
    ):
        raise UnusableStateError("it has another kind of value for the optimiser")
    return {number: dict(state) for number, state in said.items()}


def _history(columns: Mapping[str, Tensor]) -> dict[str, list[float]]:
    for name, column in columns.items():
        if column.dtype != torch.float64 or column.ndim != 1 or not column.isfinite().all():
            raise UnusableStateError(f"its losses {name} are no finite numbers")
    return {name: column.tolist() for name, column in columns.items()}
