"""The fonts that the browser has: sets of the tests' own, whatever this machine has installed.

Each set is all of a machine's fonts. Their lines and letters differ in size, so that what depends
on the size of text shows: a test that looks at it takes `@in_every_font`, and all others have the
set that the environment variable BROWSER_FONTS names.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import fontpkg_space_mono
import matplotlib
import pytest


@dataclass(frozen=True)
class FontSet:
    """Font files, and the families that stand for the generic ones of CSS."""

    files: Path
    pattern: str
    monospace: str
    sans_serif: str


FONT_SETS = {
    "dejavu": FontSet(
        Path(matplotlib.get_data_path()) / "fonts" / "ttf",
        "DejaVu*.ttf",
        monospace="DejaVu Sans Mono",
        sans_serif="DejaVu Sans",
    ),
    "space": FontSet(
        fontpkg_space_mono.ROOT / "files",
        "*.ttf",
        monospace="Space Mono",
        sans_serif="Space Mono",
    ),
}
"""Low lines (1.16 of the font's size) and high ones (1.48) with wider letters."""
USUAL = os.environ.get("BROWSER_FONTS") or "dejavu"

in_every_font = pytest.mark.parametrize("fonts", FONT_SETS, indirect=True, scope="module")
"""Runs a test with each set: its browser, and so its page, has the one that `fonts` names."""

CONFIGURATION = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir>{folder}</dir>
  <cachedir>{folder}/cache</cachedir>
  <alias binding="same">
    <family>monospace</family> <prefer><family>{monospace}</family></prefer>
  </alias>
  <match> <!-- what else is asked for and not there, such as sans-serif and system-ui -->
    <edit name="family" mode="append_last"><string>{sans_serif}</string></edit>
  </match>
</fontconfig>
"""


def write_configuration(name: str, folder: Path) -> Path:
    """Write a file for FONTCONFIG_FILE into an empty folder; who reads it has this set only.

    Raises:
        KeyError: there is no set of that name.
    """
    fonts = FONT_SETS[name]
    for file in sorted(fonts.files.glob(fonts.pattern)):
        (folder / file.name).symlink_to(file)
    configuration = folder / "fonts.conf"
    text = CONFIGURATION.format(
        folder=escape(str(folder)), monospace=fonts.monospace, sans_serif=fonts.sans_serif
    )
    configuration.write_text(text, encoding="utf-8")
    return configuration
