"""Set up a real ComfyUI with tiny models on a bare machine: `make setup`.

Standard library only. Everything goes into `.sandbox/`, or into the folder ZIPLORA_SANDBOX.
COMFYUI_PATH names an existing ComfyUI to use, COMFYUI_PYTHON its Python with its packages.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

from .commands import ADVICE, SetupError, pip, run, say
from .link import link_base, link_for_type_checker
from .paths import BASE, COMFYUI, COMFYUI_PATH, COMFYUI_PYTHON, PYTHON, ROOT, SANDBOX, VENV
from .source import TESTED, get_comfyui
from .stages import Stage, run_stages

HERE = Path(__file__).resolve().parent
PIP = "pip==25.3"
TORCH = ("torch==2.12.1", "torchvision==0.27.1", "torchaudio==2.11.0")
NOT_NEEDED = {"torch", "torchvision", "torchaudio"} | {
    "comfyui-workflow-templates",
    "comfyui-embedded-docs",
}
CONSTRAINTS = HERE / "constraints.txt"
TEST_REQUIREMENTS = ROOT / "tests" / "requirements.txt"
SOURCES = (
    *("tiny.py", "tiny_weights.py", "tiny_pack/models.py", "files.py"),
    *("families.py", "tiny_pack/families.py", "family_files.py"),
)
MINI = ROOT / "tests" / "miniworld" / "weights" / "mini_sdxl.safetensors"
MINI_SOURCES = (
    *("miniworld/checkpoint.py", "miniworld/latents.py", "miniworld/network.py"),
    *("miniworld/shapes.py", "miniworld/styles.py", "miniworld/scenes.py"),
    *("quality/subjects.py", "quality/sheet.py"),
)
OLD_PYTHON = sys.version_info < (3, 11)
"""Whether the tested versions do not install; then the newest that do are taken."""
GIGABYTE = 1024**3
NEEDED_SPACE = 8 * GIGABYTE
INSTALL = ("install", "--quiet", "--disable-pip-version-check", "--resume-retries", "5")


def main() -> int:
    """Bring the sandbox up to date; print one line if it already is."""
    try:
        check_machine()
        run_stages(stages(), SANDBOX / "stamps")
        say(f"sandbox ready: {SANDBOX}; `make serve` opens it for the browser")
    except SetupError as error:
        say(f"\n{error}")
        return 1
    except KeyboardInterrupt:
        say("\nInterrupted. Run the same command again to resume.")
        return 130
    except OSError as error:
        say(f"\nStopped: {error}.\n{ADVICE}")
        return 1
    return 0


def stages() -> list[Stage]:
    """List the stages in order, without those that COMFYUI_PATH and COMFYUI_PYTHON replace."""
    replaced = {"comfyui"} if COMFYUI_PATH else set()
    replaced |= {"torch", "packages"} if COMFYUI_PYTHON else set()
    installed = VENV / "pyvenv.cfg"
    torch = f"{', '.join(TORCH)} (about 5 GB installed)"
    versions = _text(CONSTRAINTS)
    if COMFYUI_PATH is not None:
        versions += _text(COMFYUI / "requirements.txt")
    sources = "".join(_text(HERE / name) for name in SOURCES)
    checkpoint = BASE / "models" / "checkpoints" / "sd_xl_base_1.0.safetensors"
    mini_checkpoint = checkpoint.with_name("mini_sdxl.safetensors")
    mini_sources = "".join(_text(ROOT / "tests" / name) for name in MINI_SOURCES) + _digest(MINI)
    every = (
        Stage("venv", "Python environment", str(COMFYUI_PYTHON), PYTHON, make_venv),
        Stage("torch", torch, torch, installed, get_torch),
        Stage("comfyui", "ComfyUI", TESTED.sha256, COMFYUI / "main.py", get_source),
        Stage("packages", "ComfyUI's packages", versions, installed, get_packages),
        Stage("tests", "test packages", _text(TEST_REQUIREMENTS), installed, get_test_packages),
        Stage("link", "custom_nodes and folders", str(ROOT), BASE / "custom_nodes", link),
        Stage("files", "tiny models and LoRAs", sources, checkpoint, write_files),
        Stage("mini", "miniature SDXL", mini_sources, mini_checkpoint, write_mini),
    )
    return [stage for stage in every if stage.name not in replaced]


def check_machine() -> None:
    """Refuse a machine that cannot work: an old Python, a full disk, a wrong COMFYUI_PATH."""
    if sys.version_info < (3, 10):  # noqa: UP036 (it runs before anything is installed)
        raise SetupError(
            f"Python: found {sys.version.split()[0]}, expected 3.10 or later. Name another one: "
            "make PYTHON3=python3.12 …"
        )
    if COMFYUI_PATH is not None and not (COMFYUI / "main.py").is_file():
        raise SetupError(f"COMFYUI_PATH: found no main.py in {COMFYUI}, expected a ComfyUI folder.")
    if COMFYUI_PYTHON is not None and shutil.which(COMFYUI_PYTHON) is None:
        raise SetupError(f"COMFYUI_PYTHON: {COMFYUI_PYTHON} is not a program.")
    SANDBOX.mkdir(parents=True, exist_ok=True)
    has_torch = any(VENV.glob("lib/python*/site-packages/torch"))
    free = shutil.disk_usage(SANDBOX).free
    if COMFYUI_PYTHON is None and not has_torch and free < NEEDED_SPACE:
        raise SetupError(
            f"Disk: found {free / GIGABYTE:.1f} GB free at {SANDBOX}, expected at least "
            f"{NEEDED_SPACE / GIGABYTE:.0f} GB. Free some, or set ZIPLORA_SANDBOX to a folder on "
            "another disk."
        )


def make_venv() -> None:
    """Make the environment; with COMFYUI_PYTHON, it extends the packages of that Python."""
    made_for = VENV / "made_for"
    wanted = str(COMFYUI_PYTHON)
    found = made_for.read_text() if made_for.is_file() else None
    if found is None:
        python = COMFYUI_PYTHON or sys.executable
        run([python, "-m", "venv", str(VENV)], doing=f"making a Python environment with {python}")
        made_for.write_text(wanted)
    elif found != wanted:
        raise SetupError(
            f"{VENV}: found an environment made with COMFYUI_PYTHON={found}, expected {wanted}. "
            "Set ZIPLORA_SANDBOX to another folder, or delete this one."
        )
    if COMFYUI_PYTHON is not None:
        _add_packages_of(COMFYUI_PYTHON)
    pip(PYTHON, "install", "--quiet", "--disable-pip-version-check", PIP, doing="updating pip")


def get_torch() -> None:
    pip(PYTHON, *INSTALL, *TORCH, *_constraints(), doing="installing torch")


def get_source() -> None:
    get_comfyui(PYTHON, SANDBOX / "downloads", COMFYUI)


def get_packages() -> None:
    """Install ComfyUI's requirements without changing torch."""
    wanted = packages_of(COMFYUI)
    pip(PYTHON, *INSTALL, *wanted, *TORCH, *_constraints(), doing="installing ComfyUI's packages")


def packages_of(comfyui: Path) -> list[str]:
    """List the requirements of a ComfyUI that its servers need, without torch."""
    lines = _text(comfyui / "requirements.txt").splitlines()
    wanted = [line for line in lines if line.strip() and not line.startswith("#")]
    return [line for line in wanted if _package(line) not in NOT_NEEDED]


def get_test_packages() -> None:
    """Install the tests' requirements without changing the installed torch."""
    keep = list(TORCH) if COMFYUI_PYTHON is None else [f"torch=={_version_of('torch')}"]
    requirements = ["--requirement", str(TEST_REQUIREMENTS)]
    if OLD_PYTHON:
        lines = _text(TEST_REQUIREMENTS).splitlines()
        requirements = [line.replace("==", ">=0,<=", 1) for line in lines if line[:1] != "#"]
    pip(PYTHON, *INSTALL, *requirements, *keep, *_constraints(), doing="installing test packages")
    if COMFYUI_PYTHON is not None:  # install the programs even if that Python has the packages
        options = ("--ignore-installed", "--no-deps")
        pip(PYTHON, *INSTALL, *options, *requirements, doing="installing test programs")


def link() -> None:
    link_base(BASE)
    link_for_type_checker()


def write_files() -> None:
    run([str(PYTHON), "-m", "sandbox.files"], doing="writing the tiny models", cwd=HERE.parent)


def write_mini() -> None:
    run(
        [str(PYTHON), "-m", "sandbox.mini_files"],
        doing="writing the miniature SDXL",
        cwd=HERE.parent,
    )


def _constraints() -> list[str]:
    """Constrain to the tested versions, except with an existing or old Python or ComfyUI."""
    usual = not (COMFYUI_PYTHON or COMFYUI_PATH or OLD_PYTHON)
    return ["--constraint", str(CONSTRAINTS)] if usual else []


def _add_packages_of(python: str) -> None:
    code = "import json, site; print(json.dumps(site.getsitepackages()))"
    folders = json.loads(subprocess.check_output([python, "-c", code], text=True))
    (own,) = VENV.glob("lib/python*/site-packages")
    (own / "comfyui_python.pth").write_text("\n".join(folders) + "\n")


def _version_of(package: str) -> str:
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    result = subprocess.run([str(PYTHON), "-c", code], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise SetupError(f"COMFYUI_PYTHON: found no {package} there, expected ComfyUI's packages.")
    return result.stdout.strip()


def _package(requirement: str) -> str:
    name = requirement.strip()
    for separator in "=<>~! [;":
        name = name.split(separator)[0]
    return name.lower()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
