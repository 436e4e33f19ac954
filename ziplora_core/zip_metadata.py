"""What a learned merge says of itself in its file."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

from .files.metadata import source_metadata
from .options import ZipSettings
from .pairing import LoRAPair
from .report import Retention


def zip_metadata(
    pair: LoRAPair,
    settings: ZipSettings,
    measured: tuple[Retention, Retention] | None,
    v_prediction: bool,
) -> dict[str, str]:
    """Compose the `modelspec.*` and `ziplora.*` strings of a merge.

    Args:
        measured: of the direct merge and of this one, None where it is not known.
    """
    said = {
        "modelspec.prediction_type": "v" if v_prediction else "epsilon",
        "ziplora.method": "ziplora",
        "ziplora.settings": json.dumps(asdict(settings)),
    }
    if measured is not None:
        before, after = (asdict(r) for r in measured)
        if all(math.isfinite(v) for v in (*before.values(), *after.values()) if v is not None):
            said["ziplora.retention"] = json.dumps({"direct_merge": before, "merged": after})
    return source_metadata(pair.content, pair.style) | said
