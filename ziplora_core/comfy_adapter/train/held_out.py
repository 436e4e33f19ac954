"""How well a merge keeps its LoRAs, on samples that nothing was learned from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from ...training.noisy_samples import Denoise, NoisySample, prediction_errors
from ...training.protection import Made
from ...ziplora.report import Retention

STRIDE = 3
"""Passes of the closed form are compared on every third sample: a chart needs no more."""
Attempt = Callable[[str, Callable[[], Made]], Made | None]


class HeldOut:
    """The held-out samples, and the errors on them of the direct merge and of the learned one.

    Args:
        denoise: the model with the pair's branches, which are the direct merge now.
        samples: the samples of content, style and, if there is a joint prompt, of that.
        attempt: tries what may fail without ending the run; see `attempt`.

    `was_tried` says whether the learned merge has been measured, with success or without.
    """

    def __init__(
        self, denoise: Denoise, samples: Sequence[Sequence[NoisySample]], attempt: Attempt
    ) -> None:
        self._denoise, self._samples, self._attempt = denoise, samples, attempt
        self._direct = self._errors("measuring the direct merge")
        self._learned: list[Tensor] | None = None
        self.was_tried = False

    def measure(self) -> None:
        """Measure the learned merge."""
        self.was_tried = True
        self._learned = self._errors("measuring the merge")

    def share(self, last: bool) -> float | None:
        """Return the error of the merge so far as a share of the direct merge's; None without.

        All shares are of the same samples, every third one.

        Args:
            last: whether it is the learned merge; then all samples are measured.
        """
        if last:
            self.measure()
            now = self._learned and [of_prompt[::STRIDE] for of_prompt in self._learned]
        else:
            now = self._errors("measuring a pass", STRIDE)
        before = self._direct and [of_prompt[::STRIDE] for of_prompt in self._direct]
        return _total(now) / _total(before) if now and before and _total(before) else None

    def retention(self) -> tuple[Retention, Retention] | None:
        """Return the retention of the direct and of the learned merge; None without either."""
        if not (self._direct and self._learned):
            return None
        before, after = ([float(e.mean()) for e in of] for of in (self._direct, self._learned))
        return Retention(*before), Retention(*after)

    def _errors(self, what: str, stride: int = 1) -> list[Tensor] | None:
        if not self._samples[0]:
            return None
        few = [of_prompt[::stride] for of_prompt in self._samples]
        return self._attempt(what, lambda: _measured(self._denoise, few))


def _measured(denoise: Denoise, samples: Sequence[Sequence[NoisySample]]) -> list[Tensor]:
    return [prediction_errors(denoise, of_prompt, batch=2) for of_prompt in samples]


def _total(errors: Sequence[Tensor]) -> float:
    return sum(float(of_prompt.mean()) for of_prompt in errors)
