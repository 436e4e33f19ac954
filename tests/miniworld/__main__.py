"""Train the world's model and probes: `make miniworld`. Run again to resume."""

from __future__ import annotations

import json
import os
import sys

from sandbox.commands import say
from sandbox.paths import use_comfyui

use_comfyui()

import torch  # noqa: E402

from . import train_decoder, train_model, train_text  # noqa: E402
from .checkpoint import SMALL, WEIGHTS, save_small  # noqa: E402
from .data import draw_pictures  # noqa: E402
from .gauge import SCHEDULE as GAUGE_SCHEDULE  # noqa: E402
from .gauge import GaugeTraining, errors, load_gauge, save_gauge  # noqa: E402
from .loop import FOLDER, Line, run  # noqa: E402
from .network import Vocabulary  # noqa: E402
from .probe_files import FACTORS, save_probes  # noqa: E402
from .probes import SCHEDULE as PROBE_SCHEDULE  # noqa: E402
from .probes import Probe, ProbeTraining, accuracy  # noqa: E402
from .train_decoder import DecoderTraining  # noqa: E402
from .train_model import ModelTraining  # noqa: E402
from .train_text import TextTraining  # noqa: E402
from .world import words  # noqa: E402

THREADS = int(os.environ.get("THREADS", "1"))
LOG = WEIGHTS / "training_log.json"


def main() -> int:
    """Train what is not trained yet, and write it into the repository."""
    torch.set_num_threads(THREADS)
    say(f"checkpoints are in {FOLDER}; delete it to begin anew")
    log: dict[str, list[Line]] = {}
    probes = {name: _probe(name, seed, log) for seed, name in enumerate(FACTORS, start=1)}
    save_probes(probes)
    gauge = GaugeTraining(seed=3)
    log["gauge"] = run(gauge, GAUGE_SCHEDULE, "gauge")
    save_gauge(gauge.averaged.of(gauge.gauge))
    decoder = DecoderTraining()
    log["decoder"] = run(decoder, train_decoder.SCHEDULE, "decoder")
    text = TextTraining(Vocabulary(words()))
    log["text"] = run(text, train_text.SCHEDULE, "text")
    text.text.load_state_dict(text.averaged.of(text.text))
    say(f"drawing {train_model.PICTURES} pictures …")
    model = ModelTraining(draw_pictures(train_model.PICTURES, seed=0), text.text)
    log["model"] = run(model, train_model.SCHEDULE, "model")
    save_small(model, decoder, SMALL)
    seen = {name: accuracy(probe) for name, probe in probes.items()}
    missed = errors(load_gauge())
    LOG.write_text(json.dumps({"probes see right": seen, "gauge errs by": missed, **log}) + "\n")
    say(f"probes see right: {seen}\nwritten: {SMALL}")
    return 0


def _probe(name: str, seed: int, log: dict[str, list[Line]]) -> Probe:
    training = ProbeTraining(FACTORS[name], seed)
    log[f"probe_{name}"] = run(training, PROBE_SCHEDULE, f"probe_{name}")
    training.probe.load_state_dict(training.averaged.of(training.probe))
    return training.probe


if __name__ == "__main__":
    sys.exit(main())
