"""The closed form on a loaded MODEL, in the memory there is."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ..closed_form import ClosedForm, ClosedFormSettings, solve_coefficients
from ..errors import problem
from ..options import ZipSettings
from ..states import TEACHERS, State
from ..trainable import Watch
from .free_memory import tried
from .memory import room_for_moments
from .targets import unet_targets
from .training_model import TrainingModel


def solve_on_model(
    opened: TrainingModel,
    trained: Sequence[str],
    states: Sequence[Sequence[State]],
    settings: ZipSettings,
    watch: Watch,
) -> ClosedForm:
    """Solve for the coefficients of the trained modules, by kohya name, if settings ask for it.

    Memory that runs out costs one more try, with single states and all sums on the CPU.

    Args:
        opened: with the pair's branches on it.
        trained: the modules that get coefficients.
        states: of content, style and, where it counts, joint.
        settings: solver, passes, calibration_states, memory.
        watch: asked between passes whether to stop, told how well each has done.

    Raises:
        ZipLoRAError: memory runs out twice, or no layer could be solved.
    """
    if not settings.closed_form_states:
        return ClosedForm({})
    started = time.perf_counter()
    keys = unet_targets(opened.model)
    shown = [_spread(of_teacher, settings.closed_form_states) for of_teacher in states]

    def solve(how: ClosedFormSettings) -> ClosedForm:
        return solve_coefficients(
            opened,
            [keys[name] for name in trained],
            list(zip(TEACHERS, shown, strict=False)),
            how,
            lambda: opened.on_evaluation(opened.evaluations),
            watch.should_stop,
            watch.on_solved,
        )

    frugal = ClosedFormSettings(settings.passes, batch=1, room=0.0)
    first = ClosedFormSettings(settings.passes, room=room_for_moments(opened))
    before = opened.evaluations
    solved = tried(lambda: solve(frugal if settings.memory == "low" else first))
    if solved is None:
        opened.evaluations = before  # the second try does them again
        solved = tried(lambda: solve(frugal))
        if solved is None:
            raise problem(
                "memory",
                found="none left in the closed form, one picture at a time, sums on the CPU",
                expected="enough for two predictions at a time",
                advice="Lower width and height, close other programs, or start ComfyUI with "
                "--reserve-vram.",
            )
        solved.notes.append("memory ran out: the closed form went on with its sums on the CPU")
    passes = "1 pass" if settings.passes == 1 else f"{settings.passes} passes"
    errors = " → ".join(f"{error:.2f}" for error in solved.errors)
    lines = [
        f"closed form: {passes} over {' + '.join(str(len(s)) for s in shown)} states in "
        f"{time.perf_counter() - started:.1f} s",
        f"error of the layers' own outputs beside the direct merge's, pass by pass: {errors}",
    ]
    by_name = {name: solved.columns[keys[name]] for name in trained}
    return ClosedForm(by_name, solved.errors, lines + solved.notes)


def _spread(states: Sequence[State], count: int) -> list[State]:
    """Pick `count` states evenly: those of a trajectory lie in the order of their noise."""
    return [states[i * len(states) // count] for i in range(min(count, len(states)))]
