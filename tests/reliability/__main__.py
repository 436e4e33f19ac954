"""What the pack promises about faults, `make reliability`: measures, writes docs/RELIABILITY.md.

`make reliability ARGS="faults leaks"` measures some parts; `ARGS=--short` a few tries of each, and
writes nothing. The exit status is 1 if a promise is broken.
"""

from __future__ import annotations

import argparse
import sys

from sandbox.commands import say

from . import document, parts


def main() -> None:
    known = parts.known()
    parser = argparse.ArgumentParser(prog="make reliability ARGS=…", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(known))
    parser.add_argument("--short", action="store_true", help="a few tries of each")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(known):
        parser.error(f"found {', '.join(sorted(unknown))}, expected some of {', '.join(known)}")
    chosen = [known[name] for name in options.parts or known]
    document.require_places(chosen)
    broken = 0
    for part in chosen:
        say(f"\n## {part.title}\n")
        measured = parts.measure(part, options.short)
        say(document.table(measured.promises))
        for promise in measured.promises:
            broken += promise.held < promise.tried
            for line in promise.broken:
                say(f"BROKEN: {promise.text}: {line}")
        say(f"{measured.seconds:.0f} s")
        if not options.short:
            document.write(part, measured)
    sys.exit(broken > 0)


if __name__ == "__main__":
    main()
