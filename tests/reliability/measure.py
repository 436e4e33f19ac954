"""Measures one part, in the process that `parts.measure` starts, and writes its promises."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from sandbox.paths import ROOT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part")
    parser.add_argument("result", type=Path)
    parser.add_argument("--short", action="store_true")
    options = parser.parse_args()
    sys.path.append(str(ROOT))  # for the core; last, as ComfyUI has a nodes.py, the pack a folder
    part = import_module(f"{__package__}.{options.part}")
    promises = part.measure(options.short)
    options.result.write_text(json.dumps([asdict(promise) for promise in promises]))


if __name__ == "__main__":
    main()
