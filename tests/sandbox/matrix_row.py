"""A row of the matrix: what differs from this sandbox, and a sandbox with that."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .commands import SetupError, pip, run
from .link import link_for_type_checker
from .paths import COMFYUI, PYTHON, ROOT, SANDBOX, VENV
from .setup import INSTALL, packages_of
from .source import SOURCES, TESTED, get_comfyui

MATRIX = SANDBOX / "matrix"
FRONTEND = "comfyui-frontend-package"
LENT = ("nvidia", "nvidia_*.dist-info", "cuda_toolkit-*.dist-info")
"""What is the same for every Python: the CUDA libraries, about 2.7 GB."""
IN_COMFYUI = ("tests/comfy", "tests/server", "tests/browser")


@dataclass(frozen=True)
class Row:
    """What differs from the sandbox that `make test` uses, and the tests that it is to pass.

    Args:
        comfyui: the version of ComfyUI.
        python: the version of Python, e.g. `3.12`; empty for this sandbox's.
        frontend: the version of the frontend, `newest` for that of the package index; empty for
            the one that ComfyUI asks for.
        leaving_out: options that leave out some of them.
        refused: whether the pack says, instead of passing tests, that this ComfyUI is too old.
    """

    comfyui: str = TESTED.comfyui
    python: str = ""
    frontend: str = ""
    tests: tuple[str, ...] = IN_COMFYUI
    leaving_out: tuple[str, ...] = ()
    refused: bool = False

    @property
    def name(self) -> str:
        if self.python:
            return f"python-{self.python}"
        return f"frontend-{self.frontend}" if self.frontend else f"comfyui-{self.comfyui}"

    @property
    def sandbox(self) -> Path:
        return MATRIX / self.name

    @property
    def results(self) -> Path:
        """pytest's report of all its tests, as they ran last."""
        return self.sandbox / "results.xml"


def prepare(row: Row) -> dict[str, str]:
    """Bring a row's sandbox up to date; return the environment of its tests.

    Raises:
        SetupError: a package cannot be had, or there is no such Python here.
    """
    row.sandbox.mkdir(parents=True, exist_ok=True)
    usual = {k: v for k, v in os.environ.items() if not k.startswith("COMFYUI_")}
    environment = {**usual, "ZIPLORA_SANDBOX": str(row.sandbox), "DEVICE": "cpu"}
    if row.python:
        python = find_python(row.python)
        lend_libraries(python, row.sandbox / "venv")
        _link(row.sandbox / "downloads", SANDBOX / "downloads")
    else:
        python = sys.executable
        environment |= {"COMFYUI_PATH": str(tree(row.comfyui)), "COMFYUI_PYTHON": str(PYTHON)}
    command = [python, "-m", "sandbox.setup"]
    run(command, doing=f"setting up {row.name}", cwd=ROOT / "tests", environment=environment)
    link_for_type_checker()  # the set-up has made it point to the row's ComfyUI
    own = row.sandbox / "venv" / "bin" / "python"
    if not row.python:
        pip(own, *INSTALL, *packages_of(tree(row.comfyui)), doing=f"packages of {row.name}")
    if row.frontend:
        wanted = FRONTEND if row.frontend == "newest" else f"{FRONTEND}=={row.frontend}"
        pip(own, *INSTALL, "--upgrade", "--no-deps", wanted, doing=f"installing {wanted}")
    return environment


def tree(version: str) -> Path:
    """Return the folder of a version of ComfyUI; get it if it is missing."""
    if version == TESTED.comfyui:
        return COMFYUI
    folder = MATRIX / "ComfyUI" / version
    folder.parent.mkdir(parents=True, exist_ok=True)
    get_comfyui(PYTHON, SANDBOX / "downloads", folder, SOURCES[version])
    return folder


def find_python(version: str) -> str:
    """Find an interpreter: a program of that name that runs, or one of pyenv's.

    Raises:
        SetupError: there is none.
    """
    pyenv = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"))
    for program in (shutil.which(f"python{version}"), *map(str, pyenv)):
        if program and re.match(rf"Python {version}\.", _says(program)):
            return program
    raise SetupError(f"Python {version}: none was found here.")


def lend_libraries(python: str, venv: Path) -> None:
    """Make an environment of another Python, with links to this sandbox's CUDA libraries."""
    if not (venv / "pyvenv.cfg").is_file():
        run([python, "-m", "venv", str(venv)], doing=f"making an environment with {python}")
    (own,) = VENV.glob("lib/python*/site-packages")
    (other,) = venv.glob("lib/python*/site-packages")
    for pattern in LENT:
        for folder in own.glob(pattern):
            _link(other / folder.name, folder)


def _says(program: str) -> str:
    found = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return found.stdout


def _link(link: Path, target: Path) -> None:
    if not link.exists():
        link.symlink_to(target)
