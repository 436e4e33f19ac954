"""The closed form on a loaded MODEL, within its memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from ...errors import problem
from ...training.interface import ProgressCallbacks
from ...training.noisy_samples import NoisySample
from ...ziplora.closed_form import BOUNDS, ClosedForm, ClosedFormSettings, solve_coefficients
from ...ziplora.layer_least_squares import UNBOUNDED
from ...ziplora.options import ZipLoRASettings
from ..model.memory import moments_budget
from ..model.memory_advice import run_or_free_memory
from ..model.targets import unet_targets
from ..model.training_model import TrainingModel


def solve_on_model(
    opened: TrainingModel,
    trained: Sequence[str],
    samples: Sequence[Sequence[NoisySample]],
    settings: ZipLoRASettings,
    callbacks: ProgressCallbacks,
    measure: Callable[[bool], float | None],
    joint_prompts: int = 1,
) -> ClosedForm:
    """Solve for the trained modules' coefficients, if the settings use the closed form.

    If memory runs out, the solution is computed once more with single samples and all sums on the
    CPU.

    Args:
        opened: the model, with the pair's branches on it.
        trained: kohya names of the modules that get coefficients.
        samples: the noisy samples of content, style and, if there is a joint prompt, of that.
        settings: the node's settings.
        callbacks: callbacks for a stop between passes and for the errors so far.
        measure: returns the error of the branches as they are, see `HeldOut.share`.
        joint_prompts: the number of joint prompts, which share their weight.

    Returns:
        coefficients by kohya name, errors and report lines; empty without a closed form.

    Raises:
        ZipLoRAError: memory runs out twice, or no layer could be solved.
    """
    if not settings.closed_form_samples:
        return ClosedForm({})
    started = time.perf_counter()
    keys = unet_targets(opened.model)
    prompts = (1, 1, joint_prompts)[: len(samples)]
    shown = [
        _spread(of_teacher, settings.closed_form_samples * count)
        for of_teacher, count in zip(samples, prompts, strict=True)
    ]
    weights = [w / count for w, count in zip(settings.weights, prompts, strict=False)]

    errors: list[float] = []

    def on_pass() -> None:
        error = measure(len(errors) == settings.passes)
        errors.append(math.nan if error is None else error)
        callbacks.on_solved(errors)

    def solve(how: ClosedFormSettings) -> ClosedForm:
        errors[:] = [1.0]
        return solve_coefficients(
            opened,
            [keys[name] for name in trained],
            list(zip(settings.teachers, shown, strict=False)),
            how,
            lambda: opened.on_evaluation(opened.evaluations),
            callbacks.should_stop,
            on_pass if settings.options.held_out_draws else lambda: None,
        )

    first = ClosedFormSettings(
        settings.passes,
        settings.ridge,
        budget=moments_budget(opened),
        weights=weights,
        bounds=BOUNDS if settings.bounded else UNBOUNDED,
    )
    frugal = replace(first, batch=1, budget=0.0)
    before = opened.evaluations
    solved = run_or_free_memory(lambda: solve(frugal if settings.memory == "low" else first))
    if solved is None:
        opened.evaluations = before  # the second try repeats them
        solved = run_or_free_memory(lambda: solve(frugal))
        if solved is None:
            raise problem(
                "memory",
                found="none left in the closed form, with one sample at a time and sums on the CPU",
                expected="enough for two predictions at a time",
                advice="Lower width and height, close other programs, or start ComfyUI with "
                "--reserve-vram.",
            )
        solved.notes.append("memory ran out: the closed form went on with its sums on the CPU")
    passes = "1 pass" if settings.passes == 1 else f"{settings.passes} passes"
    lines = [
        f"closed form: {passes} over {' + '.join(str(len(s)) for s in shown)} calibration samples "
        f"in {time.perf_counter() - started:.1f} s",
    ]
    if settings.options.held_out_draws:
        shares = " → ".join(f"{error:.2f}" for error in errors)
        lines.append(f"error on noise not learned from, as a share of the direct merge's: {shares}")
        solved.errors = errors
    by_name = {name: solved.columns[keys[name]] for name in trained}
    return replace(solved, columns=by_name, notes=lines + solved.notes)


def _spread(samples: Sequence[NoisySample], count: int) -> list[NoisySample]:
    """Return `count` evenly spaced samples, as those of a trajectory are ordered by noise level."""
    return [samples[i * len(samples) // count] for i in range(min(count, len(samples)))]
