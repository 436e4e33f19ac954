"""The inputs of a search for the best strengths of a merge, and their checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ...errors import problem
from ...lora.factors import LoRA
from ...lora.merged import MergedLoRA
from ...lora.pair import LoRAPair
from ...merging.strengths import Strengths
from ...merging.successive_halving import Round, plan
from ..apply.sweep import Sampling
from .scores import ScoreInputs


@dataclass(frozen=True)
class FindInputs:
    """The merges to search, and how.

    Args:
        merges: one or two kinds of merge by the name of their input; the first one's halves are
            the LoRAs that draw the calibration.
        strengths: the candidates for each kind, `BASELINE` first.
        sampling: the sampler's settings; `positive` is the joint prompt.
        pictures: the largest number of pictures to draw for all candidates together.
        minutes: the time after which the search ends with the best so far; 0 for none.
        negative_strength: see `with_negative_strength`.
        references: the image encoders and their pictures. Without both encoders, the
            model's own features judge.
    """

    merges: Mapping[str, MergedLoRA]
    strengths: Sequence[Strengths]
    sampling: Sampling
    pictures: int = 32
    minutes: float = 0.0
    negative_strength: float = 0.0
    references: ScoreInputs = field(default_factory=lambda: ScoreInputs(()))

    @property
    def budget(self) -> int:
        """The largest number of pictures for each kind."""
        return self.pictures // len(self.merges)

    @property
    def rounds(self) -> list[Round]:
        """The rounds of each kind; see `plan`."""
        return plan(len(self.strengths), self.budget)

    @property
    def planned(self) -> int:
        """The number of pictures for all kinds, if nothing ends the search early."""
        return len(self.merges) * sum(this.total for this in self.rounds)

    @property
    def by_encoders(self) -> bool:
        """Whether both image encoders are given."""
        return self.references.clip_vision is not None and self.references.dino is not None

    def evaluations(self, pictures: int) -> int:
        """The UNet evaluations that draw pictures, by a sampler with one a step."""
        return pictures * self.sampling.steps * (1 if self.sampling.cfg == 1 else 2)


def refuse_one_lora(name: str, merged: MergedLoRA) -> None:
    """Refuse a merge whose content and style cannot get strengths of their own at one prompt.

    Args:
        name: the input's name, for the message.
        merged: the merge.

    Raises:
        ZipLoRAError: UnZipLoRA has made it, or its content and style are one LoRA.
    """
    if merged.prompt_separated:
        raise problem(
            name,
            found="a merge from UnZipLoRA, whose halves each read a prompt of their own",
            expected="a merge for one prompt",
            advice="Use Merge LoRAs or ZipLoRA Optimize on the two LoRAs instead.",
        )
    if not merged.separable:
        raise problem(
            name,
            found="a merge in which content and style are one LoRA",
            expected="one in which they can still have different strengths",
            advice="Merge with rank 0, and with a method that keeps them apart, such as direct.",
        )


def halves_of(merged: MergedLoRA) -> LoRAPair:
    """Return the two LoRAs that a merge is made of, without its coefficients."""
    content = {name: p.content for name, p in merged.pairs.items() if p.content is not None}
    style = {name: p.style for name, p in merged.pairs.items() if p.style is not None}
    return LoRAPair(LoRA("the merge's content", content), LoRA("the merge's style", style))
