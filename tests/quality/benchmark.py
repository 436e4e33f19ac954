"""The merges' benchmark: which methods are measured on which pairs, under which conditions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

from miniworld.parts import load_parts
from miniworld.probe_files import load_probes
from sandbox.commands import say

from .cache import State
from .conditions import AS_MADE, CONDITIONS, STRENGTHS
from .experiment import make_bench
from .methods import CLOSED_FORM, DIRECT, NULL_SPACE, RANK_SPACE, TABLE
from .sources import LAYERS, content_lora, style_lora
from .subjects import TUNING, Pair

CHANGED = (DIRECT, NULL_SPACE, RANK_SPACE, CLOSED_FORM)
"""Methods that are drawn under every condition."""
SEEDED = (DIRECT, CLOSED_FORM)
"""Methods that are measured on LoRAs of other seeds, too."""
SEEDS = (1, 2)
SHORT = ("content LoRA alone", "style LoRA alone", DIRECT, NULL_SPACE, CLOSED_FORM)


@dataclass(frozen=True)
class Plan:
    """The methods and pairs of one run.

    Args:
        methods: on every pair.
        changed: those drawn under every condition.
        strengths: whether the direct merge is drawn at every strength.
        seeded: pairs that are measured with LoRAs of other seeds, too.
    """

    pairs: Sequence[Pair]
    methods: Sequence[str] = tuple(TABLE)
    changed: Sequence[str] = CHANGED
    strengths: bool = True
    seeded: Sequence[Pair] = ()


@dataclass
class PairResult:
    """The results for one pair and one training of its LoRAs.

    Args:
        real: alignments of real pictures among themselves.
        alone: by method.
        joint: by method and condition.
        strengths: the direct merge, by its strengths.
    """

    pair: Pair
    seed: int
    real: dict[str, float]
    alone: dict[str, State] = field(default_factory=dict)
    joint: dict[str, dict[str, State]] = field(default_factory=dict)
    strengths: dict[str, State] = field(default_factory=dict)


FULL = Plan(TUNING, seeded=TUNING[:2])
BRIEF = Plan(TUNING[:4], SHORT, changed=(), strengths=False)


def run(workers: Executor, plan: Plan) -> list[PairResult]:
    """Train the LoRAs that are not kept yet, then run every method on every pair."""
    train_loras(workers, plan.pairs)
    for seed in SEEDS:
        train_loras(workers, plan.seeded, seed)
    jobs = [workers.submit(run_pair, pair, 0, plan) for pair in plan.pairs]
    seeded = Plan((), SEEDED, changed=(), strengths=False)
    jobs += [workers.submit(run_pair, p, seed, seeded) for p in plan.seeded for seed in SEEDS]
    return [job.result() for job in jobs]


def train_loras(
    workers: Executor, pairs: Sequence[Pair], seed: int = 0, layers: str = LAYERS
) -> None:
    """Train the LoRAs of these pairs that are not kept yet, each once."""
    wanted = {("content", pair.subject): pair for pair in pairs} | {
        ("style", pair.style.words): pair for pair in pairs
    }
    trainings = [workers.submit(train, of, p, seed, layers) for (of, _), p in wanted.items()]
    for training in trainings:
        training.result()


def train(of: str, pair: Pair, seed: int, layers: str) -> None:
    """Train one LoRA of a pair, and keep it."""
    say(f"{pair.name}: the {of} LoRA, seed {seed}, {layers}")
    make: Callable[..., object] = content_lora if of == "content" else style_lora
    make(load_parts(), pair, seed=seed, layers=layers)


def run_pair(pair: Pair, seed: int, plan: Plan) -> PairResult:
    """Run every method on a pair, with LoRAs of this seed."""
    bench = make_bench(load_parts(), pair, load_probes(), seed=seed)
    real = {"subject": bench.refs.content.real, "style": bench.refs.style.real}
    result = PairResult(pair, seed, real)
    for method in plan.methods:
        result.alone[method] = bench.alone(method)
        chosen = CONDITIONS if method in plan.changed else {AS_MADE: CONDITIONS[AS_MADE]}
        result.joint[method] = {
            name: bench.joint(method, condition) for name, condition in chosen.items()
        }
        if method == DIRECT and plan.strengths:
            result.strengths = {
                name: bench.joint(method, condition) for name, condition in STRENGTHS.items()
            }
        say(f"{pair.name}, seed {seed}, {method}")
    return result
